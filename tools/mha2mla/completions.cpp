#include <algorithm>

#include "documents.hpp"

namespace mha2mla::tool {
namespace {

/// The kind of completion of a value.
enum class Values : std::uint8_t { choices, files, directories, nothing };

Values values_of(const OptionDoc& option) {
    if (!option.choices().empty()) return Values::choices;
    if (option.value == "DIR") return Values::directories;
    if (option.value == "FILE" || option.value == "PATH") return Values::files;
    return Values::nothing;
}

std::vector<OptionDoc> all_options(const CommandDoc& command) {
    std::vector<OptionDoc> options;
    for (const auto& group : command.groups) options.insert(options.end(), group.options.begin(), group.options.end());
    return options;
}

std::string join(const std::vector<std::string>& words, const std::string& between) {
    std::string text;
    for (const auto& word : words) text += (text.empty() ? "" : between) + word;
    return text;
}

std::string replace_all(std::string text, const std::string& from, const std::string& to) {
    for (std::size_t at = 0; (at = text.find(from, at)) != std::string::npos; at += to.size()) {
        text.replace(at, from.size(), to);
    }
    return text;
}

/// The first line of a text, because completion menus have no room for lists.
std::string brief(const std::string& text) {
    std::string line = text.substr(0, text.find('\n'));
    if (line.ends_with(":")) line.pop_back();
    return line;
}

std::string single_quoted(const std::string& text) { return "'" + replace_all(text, "'", "'\\''") + "'"; }

std::string bash_values(const OptionDoc& option) {
    switch (values_of(option)) {
        case Values::choices:
            return "COMPREPLY=($(compgen -W " + single_quoted(join(option.choices(), " ")) + " -- \"$cur\"))";
        case Values::files:
            return "_mha2mla_files -f";
        case Values::directories:
            return "_mha2mla_files -d";
        case Values::nothing:
            break;
    }
    return "COMPREPLY=()";
}

/// The cases of one command: values of its options, its options, and otherwise its arguments.
std::string bash_command(const CommandDoc& command) {
    std::string options, values;
    for (const auto& option : all_options(command)) {
        options += (options.empty() ? "" : " ") + join(option.names, " ");
        if (option.is_flag()) continue;
        values += "                " + join(option.names, "|") + ") " + bash_values(option) + "; return ;;\n";
    }
    std::string text = "        " + (command.name.empty() ? "''" : command.name) + ")\n";
    if (!values.empty()) text += "            case $prev in\n" + values + "            esac\n";
    std::string rest = "            ";
    if (!command.commands.empty()) {
        std::vector<std::string> names;
        for (const auto& [name, summary] : command.commands) names.push_back(name);
        rest += "COMPREPLY=($(compgen -W " + single_quoted(join(names, " ")) + " -- \"$cur\"))";
    } else if (!command.arguments.empty()) {
        rest += bash_values(command.arguments.back());
    } else {
        rest += "COMPREPLY=()";
    }
    text += "            if [[ $cur == -* ]]; then\n                COMPREPLY=($(compgen -W " + single_quoted(options) +
            " -- \"$cur\"))\n                return\n            fi\n" + rest + "\n            ;;\n";
    return text;
}

/// '(-o --output)'{-o+,--output=}'[text]:value:action'; the value may also follow "=", or directly "-o".
std::string zsh_option(const OptionDoc& option) {
    // Colons and brackets have a special meaning in a specification.
    std::string text = brief(option.text);
    for (const char* special : {"\\", "[", "]", ":"}) text = replace_all(text, special, std::string("\\") + special);
    std::string spec = "[" + text + "]";
    switch (values_of(option)) {
        case Values::choices:
            spec += ":value:(" + join(option.choices(), " ") + ")";
            break;
        case Values::files:
            spec += ":file:_files";
            break;
        case Values::directories:
            spec += ":directory:_files -/";
            break;
        case Values::nothing:
            if (!option.is_flag()) spec += ":" + option.value + ": ";
            break;
    }
    std::vector<std::string> names;
    for (const auto& name : option.names) {
        names.push_back(name + (option.is_flag() ? "" : name.starts_with("--") ? "=" : "+"));
    }
    if (names.size() == 1) return single_quoted(names.front() + spec);
    return single_quoted("(" + join(option.names, " ") + ")") + "{" + join(names, ",") + "}" + single_quoted(spec);
}

std::string zsh_argument(const OptionDoc& argument, std::size_t place) {
    std::string action = "_files";
    if (values_of(argument) == Values::directories) action = "_files -/";
    if (values_of(argument) == Values::choices) action = "(" + join(argument.choices(), " ") + ")";
    return single_quoted((argument.repeats ? "*" : std::to_string(place)) + ":" + argument.names.front() + ":" +
                         action);
}

std::string zsh_arguments(const CommandDoc& command, const std::string& indent) {
    std::string text = indent + "_arguments -s";
    for (const auto& option : all_options(command)) text += " \\\n" + indent + "  " + zsh_option(option);
    std::size_t place = 0;
    for (const auto& argument : command.arguments) text += " \\\n" + indent + "  " + zsh_argument(argument, ++place);
    return text;
}

std::string fish_option(const std::string& condition, const OptionDoc& option) {
    std::string text = "complete -c mha2mla -n " + single_quoted(condition);
    for (const auto& name : option.names) {
        text += name.starts_with("--") ? " -l " + name.substr(2) : " -s " + name.substr(1);
    }
    switch (values_of(option)) {
        case Values::choices:
            text += " -x -a " + single_quoted(join(option.choices(), " "));
            break;
        case Values::files:
            text += " -r -F";
            break;
        case Values::directories:
            text += " -x -a '(__fish_complete_directories)'";
            break;
        case Values::nothing:
            if (!option.is_flag()) text += " -x";
            break;
    }
    return text + " -d " + single_quoted(brief(option.text)) + "\n";
}

}  // namespace

std::string bash_completion(const ProgramDoc& doc) {
    std::vector<std::string> with_value;
    for (const auto& option : all_options(doc.program)) {
        if (!option.is_flag()) with_value.insert(with_value.end(), option.names.begin(), option.names.end());
    }
    std::string names;
    for (const auto& command : doc.commands) names += (names.empty() ? "" : "|") + command.name;
    std::string text =
        "# bash completion of mha2mla, made by `mha2mla completion bash`\n"
        "_mha2mla_files() {\n"
        "    local IFS=$'\\n'\n"
        "    COMPREPLY=($(compgen \"$1\" -- \"$cur\"))\n"
        "    compopt -o filenames 2>/dev/null\n"
        "}\n\n"
        "_mha2mla() {\n"
        "    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} command='' i\n"
        "    COMPREPLY=()\n"
        "    # --option=value comes as three words.\n"
        "    [[ $cur == '=' ]] && cur='' || { [[ $prev == '=' ]] && prev=${COMP_WORDS[COMP_CWORD-2]}; }\n"
        "    for ((i = 1; i < COMP_CWORD; ++i)); do\n"
        "        case ${COMP_WORDS[i]} in\n"
        "            " +
        join(with_value, "|") +
        ") ((++i)) ;;\n"
        "            " +
        names +
        ") command=${COMP_WORDS[i]}; break ;;\n"
        "        esac\n"
        "    done\n"
        "    case $command in\n" +
        bash_command(doc.program);
    for (const auto& command : doc.commands) text += bash_command(command);
    return text + "    esac\n}\n\ncomplete -F _mha2mla mha2mla\n";
}

std::string zsh_completion(const ProgramDoc& doc) {
    std::string text =
        "#compdef mha2mla\n"
        "# zsh completion of mha2mla, made by `mha2mla completion zsh`\n\n"
        "_mha2mla() {\n"
        "  local curcontext=$curcontext state line\n"
        "  local -a commands\n"
        "  commands=(\n";
    for (const auto& [name, summary] : doc.program.commands) {
        text += "    " + single_quoted(name + ":" + replace_all(summary, ":", "\\:")) + "\n";
    }
    text += "  )\n" + zsh_arguments(doc.program, "  ") +
            " \\\n    '1:command:->command' \\\n    '*::argument:->argument'\n"
            "  case $state in\n"
            "    command) _describe command commands ;;\n"
            "    argument)\n"
            "      case $words[1] in\n";
    for (const auto& command : doc.commands) {
        text += "        " + command.name + ")\n" + zsh_arguments(command, "          ") + "\n          ;;\n";
    }
    return text +
           "      esac\n"
           "      ;;\n"
           "  esac\n"
           "}\n\n"
           "# Loaded by fpath, this file is the function; sourced, it registers it.\n"
           "if [[ $funcstack[1] == _mha2mla ]]; then\n"
           "  _mha2mla \"$@\"\n"
           "else\n"
           "  compdef _mha2mla mha2mla\n"
           "fi\n";
}

std::string fish_completion(const ProgramDoc& doc) {
    std::string text = "# fish completion of mha2mla, made by `mha2mla completion fish`\ncomplete -c mha2mla -f\n";
    for (const auto& option : all_options(doc.program)) text += fish_option("__fish_use_subcommand", option);
    for (const auto& [name, summary] : doc.program.commands) {
        text += "complete -c mha2mla -n __fish_use_subcommand -a " + name + " -d " + single_quoted(summary) + "\n";
    }
    for (const auto& command : doc.commands) {
        const std::string condition = "__fish_seen_subcommand_from " + command.name;
        for (const auto& option : all_options(command)) text += fish_option(condition, option);
        if (command.arguments.empty()) continue;
        const auto& argument = command.arguments.back();
        text += "complete -c mha2mla -n " + single_quoted(condition);
        text += values_of(argument) == Values::directories ? " -x -a '(__fish_complete_directories)'\n"
                : values_of(argument) == Values::choices
                    ? " -x -a " + single_quoted(join(argument.choices(), " ")) + "\n"
                    : " -F\n";
    }
    return text;
}

}  // namespace mha2mla::tool
