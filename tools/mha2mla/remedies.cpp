#include "remedies.hpp"

#include <array>

#include "options.hpp"

namespace mha2mla::tool {
namespace {

/// One row for each of kRemedies, in its order. ORDER stands for the options of calibrate that rank pairs.
constexpr std::array<RemedyRow, kRemedies.size()> kOptions = {{
    {Remedy::none, ""},
    {Remedy::overwrite, "choose another place or try --overwrite"},
    {Remedy::resume_or_overwrite, "go on with --resume, or try --overwrite"},
    {Remedy::resume, "go on with the same command and --resume"},
    {Remedy::start_over, "start over with --overwrite instead of --resume"},
    {Remedy::more_memory, "raise --max-memory"},
    {Remedy::fewer_threads, "use fewer --threads or free some"},
    {Remedy::less_text, "give fewer --samples or a shorter --seq-len"},
    {Remedy::less_text_or_more_memory, "give fewer --samples or a shorter --seq-len, or raise --max-memory"},
    {Remedy::less_text_or_papers_method, "convert with fewer --samples, or with --method mha2mla"},
    {Remedy::longer_text, "give more text or a smaller --seq-len"},
    {Remedy::give_text, "give --text FILE or --tokens FILE"},
    {Remedy::name_field,
     "say which field holds the text: --text-field NAME, or --calibration-text-field or --eval-text-field"},
    {Remedy::give_norms,
     "give --calibration-text FILE, --calibration-tokens FILE, --stats FILE (from calibrate) or --rank-file FILE; or "
     "choose --rope uniform, which needs none"},
    {Remedy::give_statistics,
     "give --calibration-text FILE, --calibration-tokens FILE or --stats FILE (from calibrate); or choose --rope "
     "uniform, which needs none"},
    {Remedy::give_statistics_or_joint,
     "give --calibration-text FILE, --calibration-tokens FILE or --stats FILE (from calibrate); or choose --rope "
     "uniform and --svd joint, which need none"},
    {Remedy::give_order, "give --calibration-text FILE, or --stats FILE from calibrate ORDER"},
    {Remedy::give_moments, "give --calibration-text FILE, or --stats FILE from calibrate --moments"},
    {Remedy::calibrate_with_moments, "calibrate again with --moments"},
    {Remedy::calibrate_with_order, "calibrate again with ORDER"},
    {Remedy::merge_shards, "put all shards together with calibrate merge"},
    {Remedy::wider_output, "choose --dtype bf16 or f32"},
    {Remedy::smaller_cache, "use a shorter prompt, fewer new tokens or a smaller --kv-cache"},
    {Remedy::wider_cache, "use --kv-cache bf16 or f32"},
    {Remedy::tokenizer, "give token ids instead of text, or --tokenizer FILE"},
    {Remedy::deep, "--deep reads all of them"},
    {Remedy::layout_deepseek, "convert it with --layout deepseek first"},
    {Remedy::form_mqa, "choose --form mqa, whose cache is twice as large"},
    {Remedy::form_mla, "choose --form mla"},
    {Remedy::ignore_unused, "--ignore-unused leaves it out"},
}};

constexpr bool in_order() {
    for (std::size_t i = 0; i < kOptions.size(); ++i) {
        if (kOptions.at(i).remedy != static_cast<Remedy>(i) || kRemedies.at(i).remedy != static_cast<Remedy>(i)) {
            return false;
        }
    }
    return true;
}
static_assert(in_order());

}  // namespace

std::string option_advice(Remedy remedy) {
    std::string text(kOptions.at(static_cast<std::size_t>(remedy)).text);
    constexpr std::string_view kOrder = "ORDER";
    if (const auto at = text.find(kOrder); at != std::string::npos) {
        text.replace(at, kOrder.size(), order_options(" or "));
    }
    return text;
}

std::string message_of(const Error& error) { return Error::joined(error.message(), option_advice(error.remedy())); }

}  // namespace mha2mla::tool
