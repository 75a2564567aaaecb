#include "replacement.hpp"

#include "limits.hpp"
#include "utf8.hpp"

namespace mha2mla {

Replacement::Replacement(const JsonNode& node)
    : regex_(Regex::parse(node.at("pattern"))), content_(node.at("content").string()) {
    if (node.at("pattern").find("Regex") && content_.find('$') != std::string::npos) {
        node.at("content").fail(ErrorCode::unsupported, "groups ($) in a replacement are not supported; spell it out");
    }
}

void Replacement::apply(std::span<std::string> texts) const {
    Regex::Run run(regex_);
    std::vector<Match> matches;
    for (std::string& text : texts) {
        const std::size_t valid = utf8::find_invalid(text).value_or(text.size());
        run.split(std::string_view(text).substr(0, valid), matches);
        std::string out;
        out.reserve(text.size());
        for (const Match& m : matches) {
            m.matched ? out.append(content_) : out.append(text, m.begin, m.end - m.begin);
            if (out.size() > kMaxTextBytes) {
                throw Error(ErrorCode::unsupported,
                            "the tokenizer's Replace by " + in_quotes(content_) + " makes the text longer than 1 GiB");
            }
        }
        text = std::move(out.append(text, valid));
    }
}

}  // namespace mha2mla
