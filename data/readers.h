// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string_view>

#include "common/status.h"
#include "data/item_names.h"
#include "data/line_reader.h"
#include "data/record.h"
#include "data/schema.h"

namespace meander::data {

// Each reads one file from its first line to its last and hands its records, good and bad, to an
// Intake. `names`, where given, has the items' categories. `kind` is every record's.
// Errors: the reader's own, and a header that does not match the schema (kInvalid).

// Fields between delimiters. `quotes`: RFC 4180, "a ""b"", c" is one field; not across lines.
Status read_delimited(LineReader& reader, const Schema& schema, bool quotes, const ItemNames* names,
                      RecordKind kind, Intake& intake);
// An object a line. A number or a string serves where the schema wants either.
Status read_jsonl(LineReader& reader, const Schema& schema, const ItemNames* names, RecordKind kind,
                  Intake& intake);
// user item item ...
Status read_sequences(LineReader& reader, const ItemNames* names, RecordKind kind, Intake& intake);
// user item, more words are ignored.
Status read_pairs(LineReader& reader, const ItemNames* names, RecordKind kind, Intake& intake);
// item item ...; the user is the number of the session, counted on in `sessions`. In a file of
// tests: item item ...<tab>target, the items before being context.
Status read_sessions(LineReader& reader, const ItemNames* names, bool is_test,
                     std::uint64_t& sessions, Intake& intake);

}  // namespace meander::data
