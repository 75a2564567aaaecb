#include "mha2mla/generate.hpp"

#include <algorithm>
#include <chrono>
#include <limits>

#include "../support/json_file.hpp"
#include "mha2mla/error.hpp"
#include "mha2mla/runtime.hpp"

namespace mha2mla {
namespace {

double seconds_since(std::chrono::steady_clock::time_point start) {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

std::vector<TokenId> ids_of(const nlohmann::json& value, const std::filesystem::path& file) {
    std::vector<TokenId> ids;
    const auto add = [&](const nlohmann::json& id) {
        if (!id.is_number_integer()) {
            throw Error(ErrorCode::format, file.string() + ": eos_token_id is neither a number nor a list of numbers");
        }
        const auto number = id.get<std::int64_t>();
        // What no token has never ends a text.
        if (number >= 0 && number <= std::numeric_limits<TokenId>::max()) ids.push_back(static_cast<TokenId>(number));
    };
    if (value.is_array()) {
        for (const auto& id : value) add(id);
    } else if (!value.is_null()) {
        add(value);
    }
    return ids;
}

/// An unfinished sequence.
struct Active {
    std::size_t prompt = 0;
    Eigen::Index row = 0;  // row of its last token in the hidden states
};

/// What generation starts from.
struct Start {
    SessionOptions session;
    std::vector<Piece> pieces;  // the prompts
    std::vector<Sampler> samplers;
    std::vector<Active> active;
};

/// Fills in `result` what is known of the prompts.
Start start_of(std::span<const std::vector<TokenId>> prompts, const GenerateOptions& options, GenerateResult& result) {
    Start start;
    start.session.cache = options.cache;
    start.session.sequences = static_cast<std::int64_t>(prompts.size());
    for (std::size_t i = 0; i < prompts.size(); ++i) {
        if (prompts[i].empty()) {
            throw Error(ErrorCode::usage,
                        "prompt " + std::to_string(i + 1) +
                            " is empty, and the model has no bos_token_id to start from; give a text");
        }
        const auto tokens = static_cast<std::int64_t>(prompts[i].size());
        // The last new token is not processed by the model, so it needs no room in the cache.
        start.session.capacity =
            std::max(start.session.capacity, tokens + std::max<std::int64_t>(0, options.max_new_tokens - 1));
        start.pieces.push_back({static_cast<std::int64_t>(i), prompts[i]});
        start.samplers.emplace_back(SamplingOptions{options.sampling.temperature, options.sampling.top_k,
                                                    options.sampling.top_p, options.sampling.seed + i});
        result.prefill_tokens += tokens;
        start.active.push_back({i, static_cast<Eigen::Index>(result.prefill_tokens - 1)});
        result.sequences.push_back({prompts[i], tokens, false});
    }
    return start;
}

/// The logits of the last token of each active sequence. [active, vocab]
Matrix last_logits(const Model& model, const Matrix& hidden, const std::vector<Active>& active) {
    Matrix last(static_cast<Eigen::Index>(active.size()), hidden.cols());
    for (std::size_t i = 0; i < active.size(); ++i) {
        last.row(static_cast<Eigen::Index>(i)) = hidden.row(active[i].row);
    }
    return logits(model, last);
}

/// Makes tokens impossible. @param scores [active, vocab]
void exclude(const std::vector<TokenId>& tokens, Matrix& scores) {
    for (const TokenId id : tokens) {
        if (id >= 0 && id < scores.cols()) scores.col(id).setConstant(-std::numeric_limits<float>::infinity());
    }
}

}  // namespace

std::vector<TokenId> stop_tokens(const Model& model) {
    for (const char* name : {"generation_config.json", "config.json"}) {
        const auto file = model.checkpoint.directory() / name;
        std::error_code ignored;
        if (!std::filesystem::exists(file, ignored)) continue;
        const auto json = read_json_file(file);
        if (json.is_object() && json.contains("eos_token_id")) return ids_of(json.at("eos_token_id"), file);
    }
    return {};
}

GenerateResult generate(const Model& model, std::span<const std::vector<TokenId>> prompts,
                        const GenerateOptions& options, Observer& observer,
                        const std::function<void(std::size_t, TokenId)>& on_token) {
    GenerateResult result;
    auto [session_options, pieces, samplers, active] = start_of(prompts, options, result);
    Session session(model, session_options);
    auto start = std::chrono::steady_clock::now();
    Matrix hidden = session.advance(pieces);
    result.prefill_seconds = seconds_since(start);
    for (std::int64_t step = 0; step < options.max_new_tokens && !active.empty(); ++step) {
        observer.step("generate", step, options.max_new_tokens);
        Matrix scores = last_logits(model, hidden, active);
        if (step < options.min_new_tokens) exclude(options.stop, scores);
        std::vector<Active> next;
        pieces.clear();
        for (std::size_t i = 0; i < active.size(); ++i) {
            const std::size_t prompt = active[i].prompt;
            Generation& sequence = result.sequences[prompt];
            const TokenId id = samplers[prompt].next(
                {scores.row(static_cast<Eigen::Index>(i)).data(), static_cast<std::size_t>(scores.cols())});
            sequence.ids.push_back(id);
            if (step > 0) ++result.decode_tokens;
            sequence.stopped = std::find(options.stop.begin(), options.stop.end(), id) != options.stop.end();
            if (on_token) on_token(prompt, id);
            if (sequence.stopped) continue;
            pieces.push_back({static_cast<std::int64_t>(prompt), {&sequence.ids.back(), 1}});
            next.push_back({prompt, static_cast<Eigen::Index>(next.size())});
        }
        active = std::move(next);
        if (step == 0) {  // the first token counts as part of the prefill
            result.prefill_seconds = seconds_since(start);
            start = std::chrono::steady_clock::now();
        }
        if (step + 1 < options.max_new_tokens && !active.empty()) hidden = session.advance(pieces);
    }
    if (options.max_new_tokens > 0) result.decode_seconds = seconds_since(start);
    result.cache = session.cache_size();
    return result;
}

}  // namespace mha2mla
