#pragma once
#include <string>
#include <vector>

#include "longbench_lines.hpp"
#include "mha2mla/generate.hpp"

namespace mha2mla {

struct LongbenchPrompt {
    std::vector<TokenId> ids;
    bool truncated = false;
};

/// @throws Error{usage} if there is no room for a prompt of the task. Warns if prompt and new tokens may be more than
/// the
///         model's positions.
void check_lengths(const LongbenchTask& task, const ModelConfig& config, const LongbenchOptions& options,
                   Observer& observer);

/// Makes prompts, and predictions from them.
class PromptMaker {
public:
    /// All must outlive it.
    PromptMaker(const Model& model, const Tokenizer& tokenizer, const LongbenchOptions& options);
    [[nodiscard]] LongbenchPrompt make(const LongbenchTask& task, const LongbenchItem& item) const;
    [[nodiscard]] std::string predict(const LongbenchTask& task, const LongbenchPrompt& prompt,
                                      Observer& observer) const;

private:
    [[nodiscard]] LongbenchPrompt make_as_longbench(const LongbenchTask& task, const LongbenchItem& item) const;
    [[nodiscard]] LongbenchPrompt make_as_mha2mla(const LongbenchTask& task, LongbenchItem item) const;
    const Model& model_;
    const Tokenizer& tokenizer_;
    const LongbenchOptions& options_;
    std::vector<TokenId> stop_, stop_at_newline_;
};

}  // namespace mha2mla
