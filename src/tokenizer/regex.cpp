#include "regex.hpp"

#include <array>
#include <new>

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "utf8.hpp"

namespace mha2mla {
namespace {

constexpr std::size_t kJitStackBytes = 8u << 20;
constexpr std::uint32_t kHeapKibibytes = 64u << 10;
constexpr std::uint32_t kMaxNestedGroups = 100;

// Matches are sought with a few steps, as PCRE2 counts them (entries of groups and of repeats), in a part of the text
// of a few bytes; ordinary patterns need no more for nearly every word. Where that is not enough, the match is repeated
// with a pattern that reports each of its steps, and what these read is taken from the text's effort.
constexpr std::uint32_t kFreeSteps = 64;
constexpr std::size_t kFreeBytes = 256;
constexpr std::size_t kGrowth = 4;  // of the part, until it is long enough
constexpr std::uint32_t kMostSteps = 20'000'000;

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
    Owned<pcre2_code> free;     // matches at a place or behind it
    Owned<pcre2_code> metered;  // matches at a place, and reports its steps
    bool has_back_references = false;
    std::string shown;  // for messages

    [[noreturn]] void fail(const std::string& message) const {
        throw Error(ErrorCode::unsupported, "the tokenizer's regular expression " + shown + " " + message);
    }
};

/// What the steps of a match cost: one, and the distance from the place of the step before.
struct Regex::Run::Meter {
    Effort* effort;
    std::size_t step_cost = 1;
    std::size_t at = 0;

    static int report(pcre2_callout_block* step, void* meter) {
        auto& self = *static_cast<Meter*>(meter);
        const std::size_t now = step->current_position;
        const std::size_t distance = now > self.at ? now - self.at : self.at - now;
        self.at = now;
        return self.effort->take_steps(self.step_cost + distance) ? 0 : PCRE2_ERROR_CALLOUT;
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

    auto code = std::make_shared<Code>();
    code->shown = in_quotes(shown);
    const auto compiled = [&](unsigned more) {
        int error = 0;
        PCRE2_SIZE offset = 0;
        Owned<pcre2_code> out(
            pcre2_compile(bytes_of(pattern), pattern.size(), options | more, &error, &offset, context.get()));
        if (!out) {
            node.fail(ErrorCode::unsupported, "cannot compile the regular expression " + code->shown + " (" +
                                                  message_of(error) + "); rewrite it in Perl's syntax");
        }
        // Without JIT, matching is slower but otherwise the same.
        pcre2_jit_compile(out.get(), PCRE2_JIT_COMPLETE | PCRE2_JIT_PARTIAL_HARD);
        return out;
    };
    code->free = compiled(0);
    code->metered = compiled(PCRE2_ANCHORED | PCRE2_AUTO_CALLOUT);
    std::uint32_t last_reference = 0;
    pcre2_pattern_info(code->free.get(), PCRE2_INFO_BACKREFMAX, &last_reference);
    code->has_back_references = last_reference > 0;
    Regex regex;
    regex.code_ = std::move(code);
    return regex;
}

Regex::Regex(std::string_view pattern, const JsonNode& node)
    // In Ruby's syntax $ matches at line boundaries, as ^ does, which translate_regex() spells out.
    : Regex(compile(translate_regex(pattern, node), pattern, PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE, node)) {}

Regex Regex::parse(const JsonNode& node) {
    const auto fixed = node.find("String");
    const JsonNode source = fixed ? *fixed : node.at("Regex");
    const std::string& pattern = source.string();
    if (pattern.empty()) source.fail(ErrorCode::unsupported, "an empty pattern is not supported");
    return fixed ? compile(pattern, pattern, PCRE2_UTF | PCRE2_LITERAL, source) : Regex(pattern, source);
}

Regex::Run::Run(const Regex& regex, Effort& effort)
    : code_(regex.code_), effort_(&effort), resources_(std::make_unique<Resources>()) {
    resources_->data.reset(pcre2_match_data_create_from_pattern(code_->free.get(), nullptr));
    resources_->context.reset(pcre2_match_context_create(nullptr));
    resources_->stack.reset(pcre2_jit_stack_create(std::size_t{32} << 10, kJitStackBytes, nullptr));
    if (!resources_->data || !resources_->context) throw std::bad_alloc();
    pcre2_match_context* const context = resources_->context.get();
    if (resources_->stack) pcre2_jit_stack_assign(context, nullptr, resources_->stack.get());
    pcre2_set_heap_limit(context, kHeapKibibytes);
    pcre2_set_match_limit(context, kFreeSteps);
}

Regex::Run::~Run() = default;

/// Matches in the text up to `end`. @return the status of PCRE2: a match, that there is none, that the end of the part
/// was reached although the text goes on, or that the steps were used up. @throws Error{unsupported} for any other.
int Regex::Run::match(Cost cost, std::string_view text, std::size_t from, std::size_t end) {
    const pcre2_code* const code = (cost == Cost::free ? code_->free : code_->metered).get();
    const std::uint32_t part = end < text.size() ? PCRE2_PARTIAL_HARD : 0;
    const int status = pcre2_match(code, bytes_of(text), end, from, PCRE2_NO_UTF_CHECK | part, resources_->data.get(),
                                   resources_->context.get());
    if (status >= 0 || status == PCRE2_ERROR_NOMATCH || status == PCRE2_ERROR_PARTIAL ||
        (status == PCRE2_ERROR_MATCHLIMIT && cost == Cost::free)) {
        return status;
    }
    fail(from, status == PCRE2_ERROR_CALLOUT ? "it reads the text too often" : message_of(status));
}

void Regex::Run::fail(std::size_t from, const std::string& why) const {
    code_->fail("exceeded its limits at byte " + std::to_string(from) + " of the text (" + why +
                "); split the text into smaller ones");
}

Regex::Run::Found Regex::Run::found() const {
    const PCRE2_SIZE* const bounds = pcre2_get_ovector_pointer(resources_->data.get());
    return {bounds[0], bounds[1]};
}

/// The match at `from`, if there is one, at a cost.
std::optional<Regex::Run::Found> Regex::Run::find_here(std::string_view text, std::size_t from) {
    pcre2_match_context* const context = resources_->context.get();
    pcre2_set_match_limit(context, kMostSteps);
    std::optional<Found> match_here;
    for (std::size_t bytes = kFreeBytes;; bytes *= kGrowth) {
        const std::size_t end = utf8::end_of_part(text, from, bytes);
        // A step that reaches the end of the part is not reported.
        if (!effort_->take_steps(end - from)) fail(from, "it reads the text too often");
        Meter meter{effort_, code_->has_back_references ? end - from + 1 : 1, from};
        pcre2_set_callout(context, Meter::report, &meter);
        const int status = match(Cost::metered, text, from, end);
        if (status >= 0) match_here = found();
        if (status != PCRE2_ERROR_PARTIAL) break;
    }
    pcre2_set_callout(context, nullptr, nullptr);
    pcre2_set_match_limit(context, kFreeSteps);
    return match_here;
}

/// The first match that begins at `from` or later, if there is one.
std::optional<Regex::Run::Found> Regex::Run::find(std::string_view text, std::size_t from) {
    while (from <= text.size()) {
        const std::size_t end = utf8::end_of_part(text, from, kFreeBytes);
        const int status = match(Cost::free, text, from, end);
        // An empty match at the end of the part has seen nothing of what follows.
        if (status >= 0 && (end == text.size() || found().begin < end)) return found();
        if (status == PCRE2_ERROR_PARTIAL || status == PCRE2_ERROR_MATCHLIMIT) {
            // The match that needs more begins at a known place if it lacks text, but anywhere if it lacks steps.
            std::size_t at = status == PCRE2_ERROR_PARTIAL ? found().begin : from;
            const std::size_t last = status == PCRE2_ERROR_PARTIAL ? at : end;
            do {
                if (const auto match = find_here(text, at)) return match;
                at += at < text.size() ? utf8::decode(text, at).length : 1;
            } while (at < last);
            from = at;
        } else if (end == text.size()) {
            break;
        } else {
            from = end;
        }
    }
    return std::nullopt;
}

void Regex::Run::split(std::string_view text, std::vector<Match>& out) {
    out.clear();
    std::size_t done = 0;  // everything before this position is in `out`
    for (std::size_t at = 0; at <= text.size();) {
        const auto match = find(text, at);
        if (!match) break;
        const auto [begin, end] = *match;
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
