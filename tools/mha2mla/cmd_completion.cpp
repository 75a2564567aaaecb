#include <memory>

#include "commands.hpp"
#include "documents.hpp"
#include "options.hpp"

namespace mha2mla::tool {

void add_completion(CLI::App& app, Context&) {
    auto shell = std::make_shared<std::string_view>();
    auto* command = app.add_subcommand("completion", "Print the completion script of a shell");
    add_choice(*command, "shell", *shell, kShells, &ShellRow::name, "Shell to complete for")->required();
    set_footer(*command, "Installed packages have these scripts where the shells look for them.",
               {{"for this session of bash", "source <(mha2mla completion bash)"},
                {"for every session of zsh, in a directory of $fpath", "mha2mla completion zsh >~/.zfunc/_mha2mla"},
                {"for every session of fish", "mha2mla completion fish >~/.config/fish/completions/mha2mla.fish"}});
    command->callback([shell, &app] {
        for (const auto& row : kShells) {
            if (row.name == *shell) std::printf("%s", row.render(describe_program(app)).c_str());
        }
    });
}

}  // namespace mha2mla::tool
