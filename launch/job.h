// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "common/status.h"
#include "common/storage.h"
#include "launch/yaml.h"
#include "proto/job.pb.h"

namespace meander::launch {

// A job file as it was read: the file, then MEANDER_<FIELD> of the environment, then --set.
// Checked: every field is in range and they fit together.
struct LoadedJob {
  job::Job spec;
  Origins origins;
  std::string file;

  // "job.yaml:12:3: train.batch", to lead a message about that field.
  std::string place(const std::string& path) const;
  bool is_given(const std::string& path) const { return origins.contains(path); }
};

// Reads and checks. $MEANDER_DATA in paths is replaced (resolve_data_folder). Defaults that depend
// on others are filled in: name (the file's), data.path (prepared/<name>), cluster.lanes.
// kInvalid: one line with file, line, column and key path. kNotFound: no such file.
Result<LoadedJob> load_job(Storage& storage, const std::string& file,
                           const std::vector<std::string>& sets);

// Where $MEANDER_DATA points: the environment variable, else ../shared/data beside the working
// directory, else beside the project that the job file is in. Empty: none of them is there.
std::string resolve_data_folder(Storage& storage, const std::string& job_file);

// The fields that decide which batch is (stream, seq), as key paths: a run goes on from a
// checkpoint only with the same ones.
std::vector<std::string> batch_fields();

}  // namespace meander::launch
