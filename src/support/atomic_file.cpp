#include "mha2mla/atomic_file.hpp"

#include <cstddef>
#include <span>

#include "output_file.hpp"

namespace mha2mla {

void write_file_atomically(const std::filesystem::path& path, std::string_view content) {
    OutputFile file(path);
    file.write_at(0, std::as_bytes(std::span(content)));
    file.publish();
}

}  // namespace mha2mla
