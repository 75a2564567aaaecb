#include <array>
#include <map>

#include "import_parts.hpp"
#include "mha2mla/error.hpp"
#include "mha2mla/model.hpp"

namespace mha2mla {
namespace {

/// What a dimension of a tensor is.
enum class Size : std::uint8_t { none, vocabulary, hidden, intermediate, queries, keys, head };

struct TensorRow {
    std::string_view from, to;  // without ".weight" or ".bias"; of a layer, behind its prefix
    Size rows, columns;         // no columns: a vector
    bool rotates = false;       // by heads
    bool may_have_bias = false;
};
constexpr std::array<TensorRow, 3> kWhole = {{
    {"token_embd", "model.embed_tokens", Size::vocabulary, Size::hidden},
    {"output_norm", "model.norm", Size::hidden, Size::none},
    {"output", "lm_head", Size::vocabulary, Size::hidden},
}};
constexpr std::array<TensorRow, 7> kOfLayer = {{
    {"attn_q", "self_attn.q_proj", Size::queries, Size::hidden, true, true},
    {"attn_k", "self_attn.k_proj", Size::keys, Size::hidden, true, true},
    {"attn_v", "self_attn.v_proj", Size::keys, Size::hidden, false, true},
    {"attn_output", "self_attn.o_proj", Size::hidden, Size::queries, false, true},
    {"ffn_gate", "mlp.gate_proj", Size::intermediate, Size::hidden},
    {"ffn_up", "mlp.up_proj", Size::intermediate, Size::hidden},
    {"ffn_down", "mlp.down_proj", Size::hidden, Size::intermediate},
}};

std::int64_t size_of(Size size, const ImportedShape& shape) {
    const std::array<std::int64_t, 7> sizes = {0,
                                               shape.vocab_size,
                                               shape.hidden,
                                               shape.intermediate,
                                               shape.heads * shape.head_dim,
                                               shape.kv_heads * shape.head_dim,
                                               shape.head_dim};
    return sizes.at(static_cast<std::size_t>(size));
}

/// Takes tensors of the file by name, so that those that nobody asked for remain.
class Remaining {
public:
    explicit Remaining(const GgufFile& file) : file_(file) {
        for (const GgufTensor& tensor : file.tensors()) by_name_.emplace(tensor.name, &tensor);
    }

    const GgufTensor* take(const std::string& name) {
        const auto found = by_name_.find(name);
        if (found == by_name_.end()) return nullptr;
        const GgufTensor* tensor = found->second;
        by_name_.erase(found);
        return tensor;
    }
    const GgufTensor& need(const std::string& name) {
        const GgufTensor* tensor = take(name);
        if (tensor == nullptr)
            throw Error(ErrorCode::format, file_.path().string() + ": tensor '" + name + "' is missing");
        return *tensor;
    }
    void refuse_rest() const {
        if (by_name_.empty()) return;
        throw Error(ErrorCode::unsupported, file_.path().string() + ": tensor '" + by_name_.begin()->first +
                                                "' has no place in the checkpoints of this architecture");
    }
    const GgufFile& file() const { return file_; }

private:
    const GgufFile& file_;
    std::map<std::string, const GgufTensor*, std::less<>> by_name_;
};

void check_shape(const GgufTensor& tensor, const std::vector<std::int64_t>& expected, const GgufFile& file) {
    if (tensor.shape == expected) return;
    throw Error(ErrorCode::format, file.path().string() + ": tensor '" + tensor.name + "' has shape " +
                                       to_string(tensor.shape) + ", but the keys say " + to_string(expected));
}

/// The weight of a row of a table and, where there is one, its bias.
void add(Remaining& remaining, const TensorRow& row, const std::string& from, const std::string& to,
         const ImportedArchitecture& architecture, const ImportedShape& shape, std::vector<ImportedTensor>& tensors) {
    const std::int64_t rows = size_of(row.rows, shape), columns = size_of(row.columns, shape);
    const std::int64_t head = row.rotates && architecture.pairs_side_by_side ? shape.head_dim : 0;
    const GgufTensor& weight = remaining.need(from + ".weight");
    check_shape(weight, columns > 0 ? std::vector{rows, columns} : std::vector{rows}, remaining.file());
    tensors.push_back({to + ".weight", &weight, head, columns > 0 ? 0 : architecture.norm_offset});
    const GgufTensor* bias = row.may_have_bias ? remaining.take(from + ".bias") : nullptr;
    if (bias == nullptr) return;
    check_shape(*bias, {rows}, remaining.file());
    tensors.push_back({to + ".bias", bias, head});
}

}  // namespace

std::int64_t ImportedTensor::source_row(std::int64_t row) const {
    if (interleaved_head == 0) return row;
    const std::int64_t pairs = interleaved_head / 2, at = row % interleaved_head;
    return row - at + 2 * (at % pairs) + at / pairs;
}

std::vector<ImportedTensor> imported_tensors(const GgufFile& file, const ImportedArchitecture& architecture,
                                             const ImportedShape& shape) {
    Remaining remaining(file);
    std::vector<ImportedTensor> tensors;
    for (const TensorRow& row : kWhole) {
        if (row.from == "output" && shape.tied) continue;
        add(remaining, row, std::string(row.from), std::string(row.to), architecture, shape, tensors);
    }
    for (std::int64_t layer = 0; layer < shape.layers; ++layer) {
        const std::string prefix = "blk." + std::to_string(layer) + ".";
        for (const ImportedNorm& norm : architecture.norms) {
            const TensorRow row = {norm.from, norm.to, norm.of_head ? Size::head : Size::hidden, Size::none};
            add(remaining, row, prefix + std::string(norm.from), layer_prefix(layer) + std::string(norm.to),
                architecture, shape, tensors);
        }
        for (const TensorRow& row : kOfLayer) {
            add(remaining, row, prefix + std::string(row.from), layer_prefix(layer) + std::string(row.to), architecture,
                shape, tensors);
        }
    }
    (void)remaining.take("rope_freqs.weight");  // imported_config says it
    remaining.refuse_rest();
    return tensors;
}

}  // namespace mha2mla
