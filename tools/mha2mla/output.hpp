#pragma once
/// Results on stdout.

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "mha2mla/align.hpp"
#include "mha2mla/calibration.hpp"
#include "mha2mla/evaluate.hpp"
#include "mha2mla/plan.hpp"

namespace mha2mla::tool {

/// Thrown by a command that succeeded but ends with another code than 0, after its result was printed.
struct ExitWith {
    int code;
};

/// printable(), except that line breaks and tabs stay.
[[nodiscard]] std::string printable_lines(std::string_view text);

/// JSON in which nothing but line breaks is obeyed by a terminal.
/// @param indent as nlohmann's; -1: one line
[[nodiscard]] std::string json_text(const nlohmann::ordered_json& json, int indent);

/// Prints one JSON document. @throws Error{io} like all here that print, if a file from which it may come was cut
/// short.
void print_json(const nlohmann::ordered_json& json);

/// The document of --json: whether it is asked for, and where it goes instead of stdout.
struct JsonOutput {
    bool asked = false;
    nlohmann::ordered_json* into = nullptr;
    void put(const nlohmann::ordered_json& json) const;
};

/// What both models make of the same text, as `verify --json` and the record of a conversion say it.
[[nodiscard]] nlohmann::ordered_json verify_json(const VerifyResult& result);

/// Prints "name   value" lines with the values in one column.
void print_table(const std::vector<std::pair<std::string, std::string>>& rows);

/// Characters of a line of the terminal behind a descriptor; nothing where there is no terminal.
[[nodiscard]] std::optional<std::size_t> terminal_columns(int descriptor);

/// Prints a table whose first row is its header and whose last column is free text; where a terminal is too narrow for
/// the others, each row becomes lines of its own.
void print_columns(std::vector<std::vector<std::string>> rows);

/// @throws Error{io} if stdout could not take everything (closed pipe, full disk).
void flush_stdout();

/// 134515008 -> "134.52M"
[[nodiscard]] std::string human_count(std::int64_t count);
/// 21504 -> "21,504"; a fraction keeps one digit.
[[nodiscard]] std::string human_bytes(double bytes);
/// 0.6875 -> "-68.75%"
[[nodiscard]] std::string human_reduction(double reduction);
/// Four digits after the point.
[[nodiscard]] std::string fixed(double value, int digits = 4);
/// A whole number where it is one, as scripts expect of a count of bytes.
[[nodiscard]] nlohmann::ordered_json number(double value);

/// "8", or "8 to 16" in rising order.
[[nodiscard]] std::string range_text(std::int64_t a, std::int64_t b);

/// [{"rope_dim": 4, "kv_rank": 16}, ...]
[[nodiscard]] nlohmann::ordered_json splits_json(std::span<const Split> splits);

/// The object `parameters` and `kv_cache` of a plan.
[[nodiscard]] nlohmann::ordered_json plan_json(const Plan& plan, int kv_bits);

/// Logs that a selection settled, where one was observed.
void log_settling(const std::optional<CalibrationStats::Settling>& settling, std::int64_t sequences);

}  // namespace mha2mla::tool
