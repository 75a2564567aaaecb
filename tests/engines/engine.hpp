#pragma once
/// Runs llama.cpp and the gguf package, by the scripts of this folder.

#include <cstdlib>
#include <string>
#include <vector>

#include "mha2mla/atomic_file.hpp"
#include "mha2mla/matrix.hpp"
#include "mha2mla/token_id.hpp"
#include "support/shared.hpp"
#include "support/temporary.hpp"

/// Skips the test, visibly, without the Python environment.
#define MHA2MLA_NEEDS_ENGINES() MHA2MLA_NEEDS_DOWNLOAD("venv/requirements")

namespace mha2mla::test {

/// @throws std::runtime_error if the script fails.
inline void run_script(const std::string& script, const std::vector<std::string>& arguments) {
    std::string command =
        "'" + downloaded("venv/bin/python").string() + "' '" MHA2MLA_ENGINE_TESTS_DIR "/" + script + "'";
    for (const auto& argument : arguments) command += " '" + argument + "'";
    if (std::system(command.c_str()) != 0) throw std::runtime_error(command);
}

inline std::vector<TokenId> read_ids(const SafetensorsFile& file, const std::string& name) {
    const std::vector<float> ids = read_floats(file, name);
    return {ids.begin(), ids.end()};
}

/// See llama_cpp.py.
struct Question {
    std::vector<TokenId> ids;
    std::int64_t from = 1;
    int greedy = 1;
    std::int64_t vocab = 0;
    std::vector<std::string> texts = {};
};
struct Answer {
    Matrix logprobs;  // [prefixes, vocab]
    std::vector<TokenId> greedy;
    std::vector<std::vector<TokenId>> texts;
    double cache_bytes = 0;
};
inline Answer ask(const std::filesystem::path& file, const Question& question, const TemporaryDirectory& directory) {
    const nlohmann::json json = {{"ids", question.ids},
                                 {"from", question.from},
                                 {"greedy", question.greedy},
                                 {"vocab", question.vocab},
                                 {"texts", question.texts}};
    write_file_atomically(directory / "question.json", json.dump());
    run_script("llama_cpp.py", {file, directory / "question.json", directory / "answer.safetensors"});
    const SafetensorsFile answer(directory / "answer.safetensors");
    const auto logprobs = read_floats(answer, "logprobs");
    const std::int64_t rows = static_cast<std::int64_t>(logprobs.size()) / question.vocab;
    Answer to;
    to.logprobs = Eigen::Map<const Matrix>(logprobs.data(), rows, question.vocab);
    to.greedy = read_ids(answer, "greedy");
    for (std::size_t i = 0; i < question.texts.size(); ++i) {
        to.texts.push_back(read_ids(answer, "text_" + std::to_string(i)));
    }
    to.cache_bytes = read_floats(answer, "cache_bytes").front();
    return to;
}

}  // namespace mha2mla::test
