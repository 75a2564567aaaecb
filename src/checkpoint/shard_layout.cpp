#include "shard_layout.hpp"

#include <algorithm>
#include <cstring>
#include <nlohmann/json.hpp>
#include <utility>

namespace mha2mla {

std::string header_text(std::span<const Slot* const> slots, const std::map<std::string, std::string>& metadata) {
    // Built as text instead of one JSON object: names are known to be unique, and there may be thousands.
    std::string text = "{\"__metadata__\":" + nlohmann::json(metadata).dump();
    for (const Slot* slot : slots) {
        nlohmann::ordered_json entry;
        entry["dtype"] = dtype_name(slot->spec.dtype);
        entry["shape"] = slot->spec.shape;
        entry["data_offsets"] = {slot->begin, slot->begin + slot->bytes};
        text += ',' + nlohmann::json(slot->spec.name).dump() + ':' + entry.dump();
    }
    text += '}';
    text.append((8 - text.size() % 8) % 8, ' ');
    const std::uint64_t length = text.size();
    std::string prefix(8, '\0');
    std::memcpy(prefix.data(), &length, 8);
    return prefix + text;
}

std::vector<Slot*> lay_out(std::span<Slot> slots) {
    std::vector<Slot*> order;
    for (auto& slot : slots) order.push_back(&slot);
    std::stable_sort(order.begin(), order.end(), [](const Slot* a, const Slot* b) {
        return dtype_bits(a->spec.dtype) > dtype_bits(b->spec.dtype);
    });
    std::uint64_t position = 0;
    for (Slot* slot : order) {
        slot->begin = position;
        position += slot->bytes;
    }
    return order;
}

std::vector<Slot> make_slots(std::vector<TensorSpec> tensors) {
    std::vector<Slot> slots;
    slots.reserve(tensors.size());
    for (auto& spec : tensors) {
        const std::uint64_t bytes = byte_count(spec.dtype, spec.shape);
        slots.push_back({.spec = std::move(spec), .bytes = bytes});
    }
    return slots;
}

}  // namespace mha2mla
