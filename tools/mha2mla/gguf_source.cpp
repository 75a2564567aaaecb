#include "gguf_source.hpp"

#include <array>
#include <fstream>
#include <string_view>

#include "method.hpp"
#include "mha2mla/checkpoint_writer.hpp"
#include "mha2mla/gguf_import.hpp"

namespace mha2mla::tool {
namespace fs = std::filesystem;

bool is_gguf(const fs::path& path) {
    std::error_code ignored;
    if (!fs::is_regular_file(path, ignored)) return false;
    if (path.extension() == ".gguf") return true;
    std::array<char, 4> magic{};
    std::ifstream(path, std::ios::binary).read(magic.data(), magic.size());
    return std::string_view(magic.data(), magic.size()) == "GGUF";
}

ImportedSource::ImportedSource(const ConvertFlags& flags, Context& context) : directory_(flags.source) {
    const fs::path& source = flags.source;
    if (!is_gguf(source)) return;
    check_method(flags);
    const bool goes_on = flags.resume || flags.overwrite;
    if (!goes_on) check_output_directory(flags.destination, false);
    const fs::path output = (flags.destination / "").parent_path();  // also of a path that ends with a slash
    made_ = output.parent_path() / ("." + output.filename().string() + ".mha2mla.imported");
    directory_ = made_ / source.stem();
    fs::create_directories(made_);
    GgufImportRequest request;
    request.overwrite = true;  // of an earlier run that was killed
    request.dtype = flags.request.dtype;
    try {
        (void)import_gguf(source, directory_, request, context.observer);
    } catch (...) {
        std::error_code ignored;
        fs::remove_all(made_, ignored);
        throw;
    }
}

ImportedSource::~ImportedSource() {
    std::error_code ignored;
    if (!made_.empty()) fs::remove_all(made_, ignored);
}

}  // namespace mha2mla::tool
