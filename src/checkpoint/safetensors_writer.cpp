#include "mha2mla/safetensors_writer.hpp"

#include "../support/output_file.hpp"
#include "shard_layout.hpp"

namespace mha2mla {

void write_safetensors(const std::filesystem::path& path, const std::vector<TensorSpec>& tensors,
                       const std::function<std::span<const std::byte>(std::size_t)>& data,
                       const std::map<std::string, std::string>& metadata) {
    auto slots = make_slots(tensors);
    const auto order = lay_out(slots);
    const std::string header = header_text(std::vector<const Slot*>(order.begin(), order.end()), metadata);
    OutputFile file(path);
    file.write_at(0, std::as_bytes(std::span(header)));
    for (std::size_t i = 0; i < slots.size(); ++i) file.write_at(header.size() + slots[i].begin, data(i));
    file.publish();
}

}  // namespace mha2mla
