#include <unistd.h>

#include <array>
#include <iostream>
#include <iterator>
#include <memory>

#include "commands.hpp"
#include "kv_cache_options.hpp"
#include "mha2mla/error.hpp"
#include "mha2mla/generate.hpp"
#include "mha2mla/threads.hpp"
#include "option_rules.hpp"
#include "options.hpp"
#include "output.hpp"

namespace mha2mla::tool {
namespace {

struct GenerateFlags {
    std::filesystem::path model, prompt_file, prompts, tokens, tokenizer;
    std::optional<std::string> prompt;
    std::int64_t max_new_tokens = GenerateOptions().max_new_tokens;
    double temperature = 0;
    std::optional<std::int64_t> top_k;
    std::optional<double> top_p;
    std::optional<std::uint64_t> seed;
    KvCacheFlags cache;
    bool ignore_eos = false;
    bool json = false;

    [[nodiscard]] SamplingOptions sampling() const {
        const SamplingOptions usual;
        return {temperature, top_k.value_or(usual.top_k), top_p.value_or(usual.top_p), seed.value_or(usual.seed)};
    }
};

bool draws(const GenerateFlags& flags) { return flags.temperature != 0; }
constexpr std::string_view kTemperature = "a --temperature above 0";
constexpr std::array<OptionRule<GenerateFlags>, 3> kGenerateRules = {{
    {"--top-k", [](const GenerateFlags& flags) { return flags.top_k.has_value(); }, draws, kTemperature},
    {"--top-p", [](const GenerateFlags& flags) { return flags.top_p.has_value(); }, draws, kTemperature},
    {"--seed", [](const GenerateFlags& flags) { return flags.seed.has_value(); }, draws, kTemperature},
}};

/// More is no prompt, and would fill the memory.
constexpr std::size_t kMostBytes = std::size_t{64} << 20U;

std::string read_all(const std::filesystem::path& file) {
    const auto refuse = [](const std::string& name) {
        throw Error(ErrorCode::unsupported, name + ": has more than 64 MiB; give a shorter prompt");
    };
    if (file == "-") {
        std::string text;
        for (std::array<char, 1 << 16> part{}; std::cin.read(part.data(), part.size()) || std::cin.gcount() > 0;) {
            text.append(part.data(), static_cast<std::size_t>(std::cin.gcount()));
            if (text.size() > kMostBytes) refuse("standard input");
        }
        return text;
    }
    const MappedFile mapped(file);
    if (mapped.bytes().size() > kMostBytes) refuse(file.string());
    return {reinterpret_cast<const char*>(mapped.bytes().data()), mapped.bytes().size()};
}

void drop_line_break(std::string& text) {
    if (text.ends_with('\n')) text.pop_back();
    if (text.ends_with('\r')) text.pop_back();
}

/// A text and where it came from.
struct Prompt {
    std::string text, where;
};

std::vector<Prompt> read_prompts(const GenerateFlags& flags) {
    if (flags.prompt) return {{*flags.prompt, "--prompt"}};
    const bool many = !flags.prompts.empty();
    const auto& file = many ? flags.prompts : flags.prompt_file;
    if (file.empty()) {
        throw Error(ErrorCode::usage,
                    "give --prompt TEXT, --prompt-file FILE (- reads stdin), --prompts FILE or "
                    "--prompt-tokens FILE");
    }
    std::string text = read_all(file);
    if (many && text.empty()) {
        throw Error(ErrorCode::format, file.string() + ": there are no prompts in it; give one per line");
    }
    drop_line_break(text);
    if (!many) return {{text, file.string()}};
    std::vector<Prompt> prompts;
    for (std::size_t first = 0; first <= text.size();) {
        const std::size_t end = std::min(text.find('\n', first), text.size());
        std::string line = text.substr(first, end - first);
        drop_line_break(line);
        prompts.push_back({line, file.string() + ", line " + std::to_string(prompts.size() + 1)});
        first = end + 1;
    }
    return prompts;
}

/// An empty prompt starts from BOS. @param where it came from
std::vector<TokenId> or_bos(std::vector<TokenId> ids, const ModelConfig& config, const std::string& where) {
    if (ids.empty() && config.bos_token_id) ids.push_back(static_cast<TokenId>(*config.bos_token_id));
    if (!ids.empty()) return ids;
    throw Error(ErrorCode::usage,
                where + ": the prompt is empty, and the model has no bos_token_id to start from; give a text");
}

std::vector<TokenId> encode(const Tokenizer& tokenizer, const Prompt& prompt) {
    try {
        return tokenizer.encode(prompt.text, true);
    } catch (const Error& error) {
        throw error.with_prefix(prompt.where + ": ");
    }
}

/// @return new tokens that the model's positions leave room for. @throws Error{usage} if there is none.
std::int64_t room(const std::vector<std::vector<TokenId>>& prompts, const Model& model, std::int64_t asked,
                  Context& context) {
    const std::int64_t positions = model.config.max_position_embeddings;
    std::int64_t longest = 0;
    for (const auto& ids : prompts) longest = std::max(longest, static_cast<std::int64_t>(ids.size()));
    if (longest >= positions) {
        throw Error(ErrorCode::usage, "the prompt has " + std::to_string(longest) + " tokens, but the model only " +
                                          std::to_string(positions) +
                                          " positions (max_position_embeddings); give a shorter prompt");
    }
    if (longest + asked <= positions) return asked;
    context.observer.warn("stopping after " + std::to_string(positions - longest) + " new tokens, where the model's " +
                          std::to_string(positions) + " positions end");
    return positions - longest;
}

std::string rate(std::int64_t tokens, double seconds) {
    return std::to_string(tokens) + " tokens in " + fixed(seconds, 3) + " s, " +
           fixed(static_cast<double>(tokens) / std::max(seconds, 1e-9), 1) + " per second";
}

void print_figures(const GenerateResult& result, const KvCacheOptions& cache) {
    std::fprintf(stderr, "prefill   %s\ndecode    %s\n", rate(result.prefill_tokens, result.prefill_seconds).c_str(),
                 rate(result.decode_tokens, result.decode_seconds).c_str());
    std::fprintf(stderr, "KV cache  %s, %s bytes per token (%s nominal), %s bytes for %lld tokens\n",
                 std::string(row_of(cache.format).name).c_str(), human_bytes(result.cache.bytes_per_token).c_str(),
                 human_bytes(result.cache.nominal_bytes_per_token).c_str(),
                 human_bytes(static_cast<double>(result.cache.allocated)).c_str(),
                 static_cast<long long>(result.cache.tokens));
}

nlohmann::ordered_json figures_json(const GenerateResult& result, const KvCacheOptions& cache) {
    nlohmann::ordered_json json;
    json["prefill"] = {{"tokens", result.prefill_tokens}, {"seconds", result.prefill_seconds}};
    json["decode"] = {{"tokens", result.decode_tokens}, {"seconds", result.decode_seconds}};
    json["kv_cache"] = {{"format", row_of(cache.format).name},
                        {"bytes_per_token", number(result.cache.bytes_per_token)},
                        {"nominal_bytes_per_token", number(result.cache.nominal_bytes_per_token)},
                        {"allocated_bytes", result.cache.allocated},
                        {"window_bytes", result.cache.window},
                        {"tokens", result.cache.tokens}};
    return json;
}

/// A terminal would obey control characters, another program gets them as they are.
void write(const std::string& text) {
    static const bool terminal = ::isatty(STDOUT_FILENO) == 1;
    const std::string shown = terminal ? printable_lines(text) : text;
    std::fwrite(shown.data(), 1, shown.size(), stdout);
    flush_stdout();
}

std::optional<Tokenizer> load_tokenizer(const GenerateFlags& flags, const Model& model) {
    const auto file = flags.tokenizer.empty() ? model.checkpoint.directory() / "tokenizer.json" : flags.tokenizer;
    std::error_code ignored;
    if (!flags.tokens.empty() && !std::filesystem::exists(file, ignored)) return std::nullopt;
    return Tokenizer::load(file);
}

std::vector<std::vector<TokenId>> tokenize_prompts(const GenerateFlags& flags, const Model& model,
                                                   const std::optional<Tokenizer>& tokenizer, Context& context) {
    std::vector<std::vector<TokenId>> prompts;
    if (!flags.tokens.empty()) {
        auto ids = read_token_file(flags.tokens, TokenFormat::automatic, model.config.vocab_size);
        prompts.push_back(or_bos(std::move(ids), model.config, flags.tokens.string()));
        return prompts;
    }
    for (const auto& prompt : read_prompts(flags)) {
        prompts.push_back(or_bos(encode(*tokenizer, prompt), model.config, prompt.where));
        const auto& ids = prompts.back();
        const auto bos = model.config.bos_token_id;
        if (bos && ids.size() > 1 && ids[0] == static_cast<TokenId>(*bos) && ids[1] == ids[0]) {
            context.observer.warn(prompt.where +
                                  ": begins with BOS twice: the prompt holds it, and the tokenizer adds it");
        }
    }
    return prompts;
}

nlohmann::ordered_json sequences_json(const GenerateResult& result, const std::optional<Tokenizer>& tokenizer) {
    nlohmann::ordered_json sequences = nlohmann::ordered_json::array();
    for (const auto& sequence : result.sequences) {
        nlohmann::ordered_json json;
        json["prompt_ids"] = std::vector<TokenId>(sequence.ids.begin(), sequence.ids.begin() + sequence.prompt_tokens);
        json["ids"] = sequence.ids;
        if (tokenizer) {
            std::string text = tokenizer->decode(sequence.ids, true);
            const std::size_t whole = whole_characters(text);
            if (whole < text.size()) text.replace(whole, std::string::npos, "\xEF\xBF\xBD");
            json["text"] = text;
        }
        json["stopped"] = sequence.stopped;
        sequences.push_back(std::move(json));
    }
    return sequences;
}

/// Generates and, for a single prompt, writes its text as it comes: the prompt first, but not before it is clear that
/// there will be a continuation.
GenerateResult stream_text(const Model& model, const std::vector<std::vector<TokenId>>& prompts,
                           const GenerateOptions& options, const Tokenizer& tokenizer, Context& context) {
    std::optional<TextStream> stream;
    const auto on_token = [&](std::size_t, TokenId id) {
        if (!stream) write(tokenizer.decode(prompts[0], true));
        if (!stream) stream.emplace(tokenizer, prompts[0]);
        write(stream->add(id));
    };
    GenerateResult result = generate(model, prompts, options, context.observer, on_token);
    write((stream ? stream->finish() : tokenizer.decode(prompts[0], true)) + "\n");
    return result;
}

void run(const GenerateFlags& flags, Context& context) {
    check_rules(kGenerateRules, flags);
    check_kv_cache_flags(flags.cache);
    const ThreadScope threads(context.threads);
    const Model model = open_model(flags.model, context.ignore_unused, context);
    const auto tokenizer = load_tokenizer(flags, model);
    const auto prompts = tokenize_prompts(flags, model, tokenizer, context);
    GenerateOptions options;
    options.cache = flags.cache.options(model);
    options.sampling = flags.sampling();
    options.max_new_tokens = room(prompts, model, flags.max_new_tokens, context);
    if (!flags.ignore_eos) options.stop = stop_tokens(model);

    const bool streams = !flags.json && prompts.size() == 1 && tokenizer;
    const GenerateResult result = streams ? stream_text(model, prompts, options, *tokenizer, context)
                                          : generate(model, prompts, options, context.observer, {});
    const auto sequences = sequences_json(result, tokenizer);
    if (flags.json) {
        auto json = figures_json(result, options.cache);
        if (flags.prompts.empty()) {
            json.update(sequences[0]);
        } else {
            json["sequences"] = sequences;
        }
        return print_json(json);
    }
    for (const auto& sequence : sequences) {
        if (streams) break;
        const auto& shown = tokenizer ? sequence.at("text") : sequence.at("ids");
        write((shown.is_string() ? shown.get<std::string>() : shown.dump()) + "\n");
    }
    print_figures(result, options.cache);
}

}  // namespace

void add_generate(CLI::App& app, Context& context) {
    auto flags = std::make_shared<GenerateFlags>();
    auto* command = app.add_subcommand("generate", "Continue prompts, with a KV cache in any format");
    add_checkpoint_option(*command, flags->model);
    add_ignore_unused_option(*command, context.ignore_unused);
    auto* prompt = command->add_option("--prompt", flags->prompt, "Text to continue")->type_name("TEXT");
    auto* file =
        command
            ->add_option("--prompt-file", flags->prompt_file,
                         "Text to continue from a file, or from stdin if it is -; a line break at its end is ignored")
            ->type_name("FILE")
            ->excludes(prompt);
    auto* many = command->add_option("--prompts", flags->prompts, "A batch: one prompt per line")
                     ->type_name("FILE")
                     ->excludes(prompt)
                     ->excludes(file);
    command->add_option("--prompt-tokens", flags->tokens, "Token ids instead of text, as eval's --tokens")
        ->type_name("FILE")
        ->excludes(prompt)
        ->excludes(file)
        ->excludes(many);
    command->add_option("--tokenizer", flags->tokenizer, "tokenizer.json; default: the checkpoint's")
        ->type_name("FILE");
    command
        ->add_option("--max-new-tokens", flags->max_new_tokens, "Largest number of new tokens; 0 only reads the prompt")
        ->check(in_range(0, 1 << 24))
        ->type_name("N")
        ->capture_default_str();
    command->add_flag("--ignore-eos", flags->ignore_eos, "Go on after the model's end-of-text token");
    command->add_option("--temperature", flags->temperature, "0: always the likeliest token")
        ->type_name("T")
        ->capture_default_str();
    command->add_option("--top-k", flags->top_k, "Draw from the k likeliest tokens; 0: from all")
        ->type_name("K")
        ->default_str("0");
    command->add_option("--top-p", flags->top_p, "Draw from the likeliest tokens that sum to this probability")
        ->type_name("P")
        ->default_str("1");
    command->add_option("--seed", flags->seed, "Random seed; prompt i of a batch uses seed + i")
        ->type_name("N")
        ->default_str("0");
    document_rules(*command, kGenerateRules);
    add_kv_cache_options(*command, flags->cache, "that of the weights");
    add_threads_option(*command, context);
    add_json_option(*command, flags->json);
    command->footer("Example: mha2mla generate ./model --prompt 'Once upon a time' --kv-cache int4-hqq");
    command->callback([flags, &context] { run(*flags, context); });
}

}  // namespace mha2mla::tool
