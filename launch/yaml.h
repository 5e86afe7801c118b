// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <google/protobuf/message.h>

#include <map>
#include <string>

#include "common/status.h"

namespace meander::launch {

// Where each value of a message came from, by key path: "train.batch" -> "job.yaml:12:3", "--set"
// or "MEANDER_TRAIN_BATCH". A path that is absent has its default.
using Origins = std::map<std::string, std::string>;
std::string origin_of(const Origins& origins, const std::string& path);

// Fills `message` from a YAML text by its schema: a key is a field, an enum is written by name, a
// list is a repeated field. Errors are kInvalid, one line that leads with the place:
//   job.yaml:12:3: train.bach: unknown field; did you mean 'batch'?
// `file` is the name that places are given in.
Status read_yaml(const std::string& text, const std::string& file,
                 google::protobuf::Message& message, Origins& origins);

// Sets one field from "train.batch=512" (`--set`), with the checks of read_yaml. A list is written
// as 80,40 or [80, 40].
Status set_field(const std::string& assignment, const std::string& origin,
                 google::protobuf::Message& message, Origins& origins);

// Sets every field below the top level whose environment variable is set: MEANDER_TRAIN_BATCH is
// train.batch.
Status set_from_environment(google::protobuf::Message& message, Origins& origins);

// The message as YAML, every field with its value, also those left at their default (strings and
// lists without one are left out). With `origins` a comment says where each value came from.
std::string write_yaml(const google::protobuf::Message& message, const Origins* origins);

// The value at a key path as YAML on one line: 512, [80, 40], or {from: a, until: b} of a group.
std::string field_text(const google::protobuf::Message& message, const std::string& path);

}  // namespace meander::launch
