#pragma once
/// Options that have an effect only together with others. A row says which; it drives the check, its message and the
/// help, so that an option is never ignored in silence.

#include <CLI/CLI.hpp>
#include <algorithm>
#include <string>
#include <string_view>

#include "mha2mla/error.hpp"

namespace mha2mla::tool {

template <typename Flags>
struct OptionRule {
    std::string_view option;
    bool (*given)(const Flags&);
    bool (*has_effect)(const Flags&);
    std::string_view needs;  // what must be given too, for people
};

/// @throws Error{usage} for the first option that is given and has no effect, naming what it needs.
template <typename Rules, typename Flags>
void check_rules(const Rules& rules, const Flags& flags) {
    for (const auto& rule : rules) {
        if (!rule.given(flags) || rule.has_effect(flags)) continue;
        throw Error(ErrorCode::usage, std::string(rule.option) + " has no effect here: it needs " +
                                          std::string(rule.needs) + "; add that, or leave it out");
    }
}

/// Adds to the help of an option what it needs.
inline void document_need(CLI::App& command, const std::string& name, const std::string& needs) {
    CLI::Option* option = command.get_option(name);
    std::string text = option->get_description();
    const auto end = std::min(text.find(":\n"), text.size());
    option->description(text.insert(end, " (needs " + needs + ")"));
}

template <typename Rules>
void document_rules(CLI::App& command, const Rules& rules) {
    for (const auto& rule : rules) document_need(command, std::string(rule.option), std::string(rule.needs));
}

}  // namespace mha2mla::tool
