#include "metaspace.hpp"

namespace mha2mla {

MetaspaceOptions parse_metaspace_options(const JsonNode& node) {
    using Prepend = MetaspaceOptions::Prepend;
    MetaspaceOptions options;
    options.replacement = node.at("replacement").character();
    options.split = node.boolean_or("split", true);
    const bool prefix = node.boolean_or("add_prefix_space", true);
    const auto scheme = node.find("prepend_scheme");
    if (!scheme) {
        options.prepend = prefix ? Prepend::always : Prepend::never;
        return options;
    }
    const std::string& name = scheme->string();
    if (name != "always" && name != "first" && name != "never") {
        scheme->fail(ErrorCode::unsupported, in_quotes(name) + " is not supported (supported: always, first, never)");
    }
    options.prepend = name == "always" ? Prepend::always : name == "first" ? Prepend::first : Prepend::never;
    if (!prefix && options.prepend != Prepend::never) {
        scheme->fail(ErrorCode::format, "contradicts add_prefix_space false; remove one of them");
    }
    return options;
}

}  // namespace mha2mla
