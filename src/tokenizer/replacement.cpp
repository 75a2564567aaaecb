#include "replacement.hpp"

#include "utf8.hpp"

namespace mha2mla {

Replacement::Replacement(const JsonNode& node)
    : regex_(Regex::parse(node.at("pattern"))), content_(node.at("content").string()) {
    if (node.at("pattern").find("Regex") && content_.find('$') != std::string::npos) {
        node.at("content").fail(ErrorCode::unsupported, "groups ($) in a replacement are not supported; spell it out");
    }
}

void Replacement::apply(std::span<std::string> texts, Effort& effort) const {
    Regex::Run run(regex_, effort);
    std::vector<Match> matches;
    std::size_t before = 0;  // bytes of the texts that are done
    for (std::string& text : texts) {
        const std::size_t valid = utf8::find_invalid(text).value_or(text.size());
        run.split(std::string_view(text).substr(0, valid), matches);
        std::string out;
        out.reserve(text.size());
        for (const Match& m : matches) {
            m.matched ? out.append(content_) : out.append(text, m.begin, m.end - m.begin);
            effort.check_size(before + out.size(), "Replace");
        }
        text = std::move(out.append(text, valid));
        before += text.size();
    }
}

}  // namespace mha2mla
