#pragma once
#include <string>
#include <vector>

namespace mha2mla::test {

struct ProgramResult {
    int exit_code = 0;  // 128 + signal if a signal ended the program
    std::string out, err;
};

/// Runs the mha2mla program under test. `prefix` is shell text in front of it, such as "ulimit -f 10;".
[[nodiscard]] ProgramResult run_program(const std::vector<std::string>& arguments, const std::string& prefix = "");

}  // namespace mha2mla::test
