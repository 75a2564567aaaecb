#pragma once
#include <filesystem>
#include <string>
#include <vector>

namespace mha2mla::tool {

/// A file that a command will write.
struct OutputPath {
    std::string option;  // that names it
    std::filesystem::path path;
    std::string beginning;  // of every file that the command writes here; empty: none can be told by it
};

/// Before any work: refuses outputs that are an input or one another, what is no file, and directories that are not
/// there; and, unless `overwrite`, links and files that do not look as if the command had written them.
/// @param inputs files, and directories of whose files none may be written. @throws Error
void check_output_paths(const std::vector<OutputPath>& outputs, const std::vector<std::filesystem::path>& inputs,
                        bool overwrite);

}  // namespace mha2mla::tool
