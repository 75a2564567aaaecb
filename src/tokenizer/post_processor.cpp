#include "post_processor.hpp"

#include <cstddef>

#include "limits.hpp"

namespace mha2mla {
namespace {

PostProcessor parse_byte_level(const JsonNode&) {
    // This step only corrects offsets into the text, which this reader does not report.
    return [](std::vector<TokenId>&) {};
}

PostProcessor parse_template(const JsonNode& node) {
    // The ids before, between and after the places where the text is inserted; in practice there is one such place.
    std::vector<std::vector<TokenId>> around(1);
    for (const JsonNode& piece : node.at("single").elements()) {
        if (const auto sequence = piece.find("Sequence")) {
            const JsonNode id = sequence->at("id");
            if (id.string() != "A") id.fail(ErrorCode::format, "a template for one text has only the sequence A");
            around.emplace_back();
            continue;
        }
        const JsonNode name = piece.at("SpecialToken").at("id");
        const auto token = node.at("special_tokens").find(name.string());
        if (!token)
            name.fail(ErrorCode::format, in_quotes(name.string()) + " is not among the template's special_tokens");
        for (const JsonNode& id : token->at("ids").elements()) {
            around.back().push_back(static_cast<TokenId>(id.integer(0, kMaxTokenId)));
        }
    }
    if (around.size() > 2) node.at("single").fail(ErrorCode::unsupported, "the text appears more than once");
    return [around = std::move(around)](std::vector<TokenId>& ids) {
        if (around.size() == 1) ids.clear();
        ids.insert(ids.begin(), around.front().begin(), around.front().end());
        if (around.size() == 2) ids.insert(ids.end(), around.back().begin(), around.back().end());
    };
}

/// RobertaProcessing and BertProcessing: `cls` before the text and `sep` behind it, each as [name, id].
PostProcessor parse_cls_sep(const JsonNode& node) {
    const auto id_of = [&](std::string_view key) {
        const std::vector<JsonNode> pair = node.at(key).elements();
        if (pair.size() != 2) node.at(key).fail(ErrorCode::format, "must be [name, id]");
        return static_cast<TokenId>(pair[1].integer(0, kMaxTokenId));
    };
    return [cls = id_of("cls"), sep = id_of("sep")](std::vector<TokenId>& ids) {
        ids.insert(ids.begin(), cls);
        ids.push_back(sep);
    };
}

PostProcessor parse_sequence(const JsonNode& node) {
    std::vector<PostProcessor> steps;
    for (const JsonNode& step : node.at("processors").elements()) steps.push_back(parse_post_processor(step));
    return [steps = std::move(steps)](std::vector<TokenId>& ids) {
        for (const auto& step : steps) step(ids);
    };
}

constexpr StepKind<PostProcessor> kKinds[] = {
    {"Sequence", parse_sequence},      {"TemplateProcessing", parse_template}, {"RobertaProcessing", parse_cls_sep},
    {"BertProcessing", parse_cls_sep}, {"ByteLevel", parse_byte_level},
};

}  // namespace

PostProcessor parse_post_processor(const JsonNode& node) { return parse_step(node, kKinds); }

}  // namespace mha2mla
