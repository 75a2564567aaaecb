#include "split.hpp"

#include <algorithm>

#include "utf8.hpp"

namespace mha2mla {

SplitBehavior parse_split_behavior(const JsonNode& node) {
    const std::string& name = node.string();
    if (name == "Removed") return SplitBehavior::removed;
    if (name == "Isolated") return SplitBehavior::isolated;
    if (name == "MergedWithPrevious") return SplitBehavior::merged_with_previous;
    if (name == "MergedWithNext") return SplitBehavior::merged_with_next;
    if (name == "Contiguous") return SplitBehavior::contiguous;
    node.fail(ErrorCode::unsupported, "the split behavior " + in_quotes(name) +
                                          " is not supported (supported: Removed, Isolated, MergedWithPrevious, "
                                          "MergedWithNext, Contiguous)");
}

void append_split(const std::vector<Match>& matches, SplitBehavior behavior, std::size_t offset,
                  std::vector<Words::Range>& out) {
    const std::size_t first = out.size();
    bool previous = false;  // whether the preceding part was a delimiter
    for (const Match& m : matches) {
        bool joins = false;  // whether this part continues the preceding word
        switch (behavior) {
            case SplitBehavior::removed:
            case SplitBehavior::isolated:
                break;
            case SplitBehavior::merged_with_previous:
                joins = m.matched && !previous;
                break;
            case SplitBehavior::merged_with_next:
                // Of several consecutive delimiters, only the last one joins the following word.
                joins = !m.matched && previous;
                break;
            case SplitBehavior::contiguous:
                joins = m.matched == previous;
                break;
        }
        previous = m.matched;
        if (behavior == SplitBehavior::removed && m.matched) continue;
        if (joins && out.size() > first) {
            out.back().end = offset + m.end;
        } else {
            out.push_back({offset + m.begin, offset + m.end});
        }
    }
    out.erase(std::remove_if(out.begin() + static_cast<std::ptrdiff_t>(first), out.end(),
                             [](const Words::Range& r) { return r.begin == r.end; }),
              out.end());
}

void split_words(Words& words, const Regex& delimiter, SplitBehavior behavior, bool invert, Effort& effort) {
    Regex::Run run(delimiter, effort);
    std::vector<Match> matches;
    std::vector<Words::Range> out;
    out.reserve(words.ranges.size());
    for (const Words::Range& word : words.ranges) {
        run.split(words.view(word), matches);
        if (invert) {
            for (Match& m : matches) m.matched = !m.matched;
        }
        append_split(matches, behavior, word.begin, out);
    }
    words.ranges = std::move(out);
}

void split_words(Words& words, bool (*is_delimiter)(char32_t), SplitBehavior behavior) {
    std::vector<Match> matches;
    std::vector<Words::Range> out;
    out.reserve(words.ranges.size());
    for (const Words::Range& word : words.ranges) {
        const std::string_view text = words.view(word);
        matches.clear();
        std::size_t done = 0;  // everything before this position is in `matches`
        for (std::size_t at = 0; at < text.size();) {
            const utf8::CodePoint c = utf8::decode(text, at);
            const std::size_t begin = at;
            at += c.length;
            if (!is_delimiter(c.value)) continue;
            if (begin > done) matches.push_back({done, begin, false});
            matches.push_back({begin, at, true});
            done = at;
        }
        if (done < text.size()) matches.push_back({done, text.size(), false});
        append_split(matches, behavior, word.begin, out);
    }
    words.ranges = std::move(out);
}

}  // namespace mha2mla
