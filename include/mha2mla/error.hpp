#pragma once
/// The exception type of the library.

#include <array>
#include <cstdint>
#include <exception>
#include <stdexcept>
#include <string>
#include <string_view>

namespace mha2mla {

enum class ErrorCode {
    usage,        ///< arguments that are invalid or contradict each other (exit code 2)
    io,           ///< a file is missing, unreadable or not writable, or the disk is full
    format,       ///< a file violates its format, or two files disagree
    unsupported,  ///< valid input that this version cannot process
    numeric,      ///< weights or results that are not finite, or a decomposition that failed
    interrupted,  ///< the Observer asked to stop (exit code 130)
};

/// What the caller can change so that it works, where that is a setting: a program that has a name of its own for the
/// setting (an option, a field of a form) tells that instead of advice().
enum class Remedy : std::uint8_t {
    none,
    overwrite,
    resume_or_overwrite,
    resume,
    start_over,
    more_memory,
    fewer_threads,
    less_text,
    less_text_or_more_memory,
    less_text_or_papers_method,
    longer_text,
    give_text,
    name_field,
    give_norms,
    give_statistics,
    give_statistics_or_joint,
    give_order,
    give_moments,
    calibrate_with_moments,
    calibrate_with_order,
    merge_shards,
    wider_output,
    smaller_cache,
    wider_cache,
    tokenizer,
    deep,
    layout_deepseek,
    form_mqa,
    form_mla,
    ignore_unused,
};
struct RemedyRow {
    Remedy remedy;
    std::string_view text;
};
inline constexpr std::array<RemedyRow, 30> kRemedies = {{
    {Remedy::none, ""},
    {Remedy::overwrite, "choose another place or allow overwriting"},
    {Remedy::resume_or_overwrite, "resume it, or allow overwriting"},
    {Remedy::resume, "run the same again to resume it"},
    {Remedy::start_over, "start over: overwrite it instead of resuming"},
    {Remedy::more_memory, "allow more memory"},
    {Remedy::fewer_threads, "use fewer threads or free some"},
    {Remedy::less_text, "use fewer or shorter sequences"},
    {Remedy::less_text_or_more_memory, "use fewer or shorter sequences, or allow more memory"},
    {Remedy::less_text_or_papers_method, "align on fewer sequences, or use the paper's method"},
    {Remedy::longer_text, "give more text or shorter sequences"},
    {Remedy::give_text, "give a text or token ids"},
    {Remedy::name_field, "say which field holds the text"},
    {Remedy::give_norms, "give text, statistics or a rank file; or choose the selection uniform, which needs none"},
    {Remedy::give_statistics, "give text or statistics; or choose the selection uniform, which needs none"},
    {Remedy::give_statistics_or_joint,
     "give text or statistics; or choose the selection uniform and the factorisation joint, which need none"},
    {Remedy::give_order, "give text, or statistics with that order"},
    {Remedy::give_moments, "give text, or statistics with moments"},
    {Remedy::calibrate_with_moments, "calibrate again and gather moments"},
    {Remedy::calibrate_with_order, "calibrate again and rank pairs by attention"},
    {Remedy::merge_shards, "put all shards together with merge_stats()"},
    {Remedy::wider_output, "choose bf16 or f32 for the output"},
    {Remedy::smaller_cache, "use a shorter prompt, fewer new tokens or a smaller cache format"},
    {Remedy::wider_cache, "use the cache format bf16 or f32"},
    {Remedy::tokenizer, "give token ids instead of text, or a tokenizer"},
    {Remedy::deep, "a deep look reads all of them"},
    {Remedy::layout_deepseek, "convert it to the layout deepseek first"},
    {Remedy::form_mqa, "write the form mqa"},
    {Remedy::form_mla, "write the form mla"},
    {Remedy::ignore_unused, "allow to leave it out"},
}};
/// What to do, in words of the library; empty for Remedy::none.
[[nodiscard]] constexpr std::string_view advice(Remedy remedy) {
    return kRemedies.at(static_cast<std::size_t>(remedy)).text;
}

/// `what()` is one line: what is wrong, where (file, tensor, key), and what to do next. What comes from files and
/// arguments is made printable(), and a message that would fill pages is shortened.
class Error : public std::runtime_error {
public:
    Error(ErrorCode code, std::string_view message, Remedy remedy = Remedy::none);
    [[nodiscard]] ErrorCode code() const noexcept { return code_; }
    [[nodiscard]] Remedy remedy() const noexcept { return remedy_; }
    /// what() without advice(remedy()).
    [[nodiscard]] std::string_view message() const noexcept { return {what(), length_}; }
    /// The same error with `prefix` before its message.
    [[nodiscard]] Error with_prefix(const std::string& prefix) const {
        return {code_, prefix + std::string(message()), remedy_};
    }

    /// "message; advice"
    [[nodiscard]] static std::string joined(std::string_view message, std::string_view advice) {
        return std::string(message) + (advice.empty() ? "" : "; ") + std::string(advice);
    }

private:
    struct Cleaned;
    Error(ErrorCode code, const Cleaned& message, Remedy remedy);

    ErrorCode code_;
    Remedy remedy_;
    std::size_t length_;
};

/// Any exception as an Error, in words of this project: one that is not may come from the standard library (out of
/// memory, a directory that cannot be listed) or from JSON with unexpected content. If a mapped file was cut short, the
/// error says that: whatever else failed may come of it.
[[nodiscard]] Error as_error(const std::exception_ptr& exception);

/// Calls `work`, whose exceptions all become an Error.
template <typename Work>
auto with_errors(const Work& work) {
    try {
        return work();
    } catch (...) {
        throw as_error(std::current_exception());
    }
}

}  // namespace mha2mla
