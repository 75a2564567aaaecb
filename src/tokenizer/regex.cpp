#include "regex.hpp"

#include <array>
#include <new>

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "utf8.hpp"

namespace mha2mla {
namespace {

// Limits on the cost of one match; ordinary patterns need a thousandth of them.
constexpr std::size_t kJitStackBytes = 8u << 20;
constexpr std::uint32_t kMatchSteps = 20'000'000;
constexpr std::uint32_t kHeapKibibytes = 64u << 10;
constexpr std::uint32_t kMaxNestedGroups = 100;

struct Free {
    void operator()(pcre2_code* p) const { pcre2_code_free(p); }
    void operator()(pcre2_compile_context* p) const { pcre2_compile_context_free(p); }
    void operator()(pcre2_match_data* p) const { pcre2_match_data_free(p); }
    void operator()(pcre2_match_context* p) const { pcre2_match_context_free(p); }
    void operator()(pcre2_jit_stack* p) const { pcre2_jit_stack_free(p); }
};
template <typename T>
using Owned = std::unique_ptr<T, Free>;

std::string message_of(int error) {
    std::array<PCRE2_UCHAR, 256> text{};
    pcre2_get_error_message(error, text.data(), text.size());
    return reinterpret_cast<const char*>(text.data());
}

PCRE2_SPTR bytes_of(std::string_view text) {
    // The data pointer of an empty view may be null, which some versions of PCRE2 refuse.
    return reinterpret_cast<PCRE2_SPTR>(text.data() == nullptr ? "" : text.data());
}

}  // namespace

struct Regex::Code {
    Owned<pcre2_code> code;
    std::string shown;  // for messages

    [[noreturn]] void fail(const std::string& message) const {
        throw Error(ErrorCode::unsupported, "the tokenizer's regular expression " + shown + " " + message);
    }
};

struct Regex::Run::Resources {
    Owned<pcre2_match_data> data;
    Owned<pcre2_match_context> context;
    Owned<pcre2_jit_stack> stack;
};

Regex Regex::compile(std::string_view pattern, std::string_view shown, unsigned options, const JsonNode& node) {
    const Owned<pcre2_compile_context> context(pcre2_compile_context_create(nullptr));
    if (!context) throw std::bad_alloc();
    pcre2_set_newline(context.get(), PCRE2_NEWLINE_LF);
    pcre2_set_parens_nest_limit(context.get(), kMaxNestedGroups);

    int error = 0;
    PCRE2_SIZE offset = 0;
    auto code = std::make_shared<Code>();
    code->shown = in_quotes(shown);
    code->code.reset(pcre2_compile(bytes_of(pattern), pattern.size(), options, &error, &offset, context.get()));
    if (!code->code) {
        node.fail(ErrorCode::unsupported, "cannot compile the regular expression " + code->shown + " (" +
                                              message_of(error) + "); rewrite it in Perl's syntax");
    }
    // Without JIT, matching is slower but otherwise the same.
    pcre2_jit_compile(code->code.get(), PCRE2_JIT_COMPLETE);
    Regex regex;
    regex.code_ = std::move(code);
    return regex;
}

Regex::Regex(std::string_view pattern, const JsonNode& node)
    // In Ruby's syntax ^ and $ match at line boundaries.
    : Regex(compile(translate_regex(pattern, node), pattern, PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE, node)) {}

Regex Regex::parse(const JsonNode& node) {
    const auto fixed = node.find("String");
    const JsonNode source = fixed ? *fixed : node.at("Regex");
    const std::string& pattern = source.string();
    if (pattern.empty()) source.fail(ErrorCode::unsupported, "an empty pattern is not supported");
    return fixed ? compile(pattern, pattern, PCRE2_UTF | PCRE2_LITERAL, source) : Regex(pattern, source);
}

Regex::Run::Run(const Regex& regex) : code_(regex.code_), resources_(std::make_unique<Resources>()) {
    resources_->data.reset(pcre2_match_data_create_from_pattern(code_->code.get(), nullptr));
    resources_->context.reset(pcre2_match_context_create(nullptr));
    resources_->stack.reset(pcre2_jit_stack_create(std::size_t{32} << 10, kJitStackBytes, nullptr));
    if (!resources_->data || !resources_->context) throw std::bad_alloc();
    pcre2_match_context* const context = resources_->context.get();
    if (resources_->stack) pcre2_jit_stack_assign(context, nullptr, resources_->stack.get());
    pcre2_set_match_limit(context, kMatchSteps);
    pcre2_set_heap_limit(context, kHeapKibibytes);
}

Regex::Run::~Run() = default;

void Regex::Run::split(std::string_view text, std::vector<Match>& out) {
    out.clear();
    std::size_t done = 0;  // everything before this position is in `out`
    for (std::size_t at = 0; at <= text.size();) {
        const int status = pcre2_match(code_->code.get(), bytes_of(text), text.size(), at, PCRE2_NO_UTF_CHECK,
                                       resources_->data.get(), resources_->context.get());
        if (status == PCRE2_ERROR_NOMATCH) break;
        if (status < 0) {
            code_->fail("exceeded its limits at byte " + std::to_string(at) + " of the text (" + message_of(status) +
                        "); split the text into smaller ones");
        }
        const PCRE2_SIZE* bounds = pcre2_get_ovector_pointer(resources_->data.get());
        const std::size_t begin = bounds[0];
        const std::size_t end = bounds[1];
        // Only \K inside a lookaround can cause this.
        if (begin > end || begin < done) code_->fail("matches backwards; remove \\K");
        at = end;
        if (begin == end) {
            at += begin < text.size() ? utf8::decode(text, begin).length : 1;
            if (!out.empty() && begin == done) continue;
        }
        if (begin > done) out.push_back({done, begin, false});
        out.push_back({begin, end, true});
        done = end;
    }
    if (done < text.size()) out.push_back({done, text.size(), false});
}

}  // namespace mha2mla
