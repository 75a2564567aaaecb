#include "mha2mla/tensor.hpp"

#include <Eigen/Core>
#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <limits>

#include "mha2mla/error.hpp"
#include "mha2mla/table.hpp"

namespace mha2mla {
namespace {

struct DtypeRow {
    Dtype dtype;
    std::string_view name;
    unsigned bits;
};

constexpr std::array<DtypeRow, 20> kDtypes = {{
    {Dtype::boolean, "BOOL", 8},    {Dtype::u8, "U8", 8},           {Dtype::i8, "I8", 8},
    {Dtype::f8_e5m2, "F8_E5M2", 8}, {Dtype::f8_e4m3, "F8_E4M3", 8}, {Dtype::f8_e8m0, "F8_E8M0", 8},
    {Dtype::f4, "F4", 4},           {Dtype::f6_e2m3, "F6_E2M3", 6}, {Dtype::f6_e3m2, "F6_E3M2", 6},
    {Dtype::i16, "I16", 16},        {Dtype::u16, "U16", 16},        {Dtype::f16, "F16", 16},
    {Dtype::bf16, "BF16", 16},      {Dtype::i32, "I32", 32},        {Dtype::u32, "U32", 32},
    {Dtype::f32, "F32", 32},        {Dtype::c64, "C64", 64},        {Dtype::f64, "F64", 64},
    {Dtype::i64, "I64", 64},        {Dtype::u64, "U64", 64},
}};
static_assert(in_order(kDtypes, &DtypeRow::dtype));

const DtypeRow& row(Dtype dtype) { return kDtypes.at(static_cast<std::size_t>(dtype)); }

/// Mapped tensors may be unaligned, so elements are loaded with memcpy, which compiles to a plain load.
template <typename Stored>
void load_as_float(const std::byte* data, std::span<float> out) {
    for (std::size_t i = 0; i < out.size(); ++i) {
        Stored value;
        std::memcpy(&value, data + i * sizeof(Stored), sizeof(Stored));
        out[i] = static_cast<float>(value);
    }
}

/// BF16 is the upper half of a float32.
void load_bf16(const std::byte* data, std::span<float> out) {
    for (std::size_t i = 0; i < out.size(); ++i) {
        std::uint16_t half = 0;
        std::memcpy(&half, data + 2 * i, 2);
        const std::uint32_t bits = static_cast<std::uint32_t>(half) << 16U;
        std::memcpy(&out[i], &bits, 4);
    }
}

template <typename Stored>
void store_floats(std::span<const float> values, std::byte* out, Dtype dtype, std::string_view what) {
    for (std::size_t i = 0; i < values.size(); ++i) {
        const auto stored = static_cast<Stored>(values[i]);
        if (!std::isfinite(static_cast<double>(stored)) && std::isfinite(values[i])) {
            throw Error(ErrorCode::numeric,
                        std::string(what) + ": value " + std::to_string(values[i]) + " does not fit " +
                            std::string(dtype_name(dtype)),
                        Remedy::wider_output);
        }
        std::memcpy(out + i * sizeof(Stored), &stored, sizeof(Stored));
    }
}

}  // namespace

std::string_view dtype_name(Dtype dtype) { return row(dtype).name; }
unsigned dtype_bits(Dtype dtype) { return row(dtype).bits; }

std::optional<Dtype> parse_dtype(std::string_view name) {
    for (const auto& candidate : kDtypes) {
        if (candidate.name == name) return candidate.dtype;
    }
    return std::nullopt;
}

bool is_compute_dtype(Dtype dtype) {
    return dtype == Dtype::f64 || dtype == Dtype::f32 || dtype == Dtype::f16 || dtype == Dtype::bf16;
}

std::string to_string(const Shape& shape) {
    std::string text = "[";
    for (const auto dimension : shape) {
        if (text.size() > 1) text += ", ";
        text += std::to_string(dimension);
    }
    return text + "]";
}

std::uint64_t element_count(const Shape& shape) {
    std::uint64_t count = 1;
    for (const auto dimension : shape) {
        if (dimension < 0 || __builtin_mul_overflow(count, static_cast<std::uint64_t>(dimension), &count)) {
            throw Error(ErrorCode::format, "shape " + to_string(shape) + " has too many elements");
        }
    }
    return count;
}

std::uint64_t byte_count(Dtype dtype, const Shape& shape) {
    std::uint64_t bits = 0;
    if (__builtin_mul_overflow(element_count(shape), static_cast<std::uint64_t>(dtype_bits(dtype)), &bits)) {
        throw Error(ErrorCode::format, "shape " + to_string(shape) + " has too many elements");
    }
    if (bits % 8 != 0) {
        throw Error(ErrorCode::format, "shape " + to_string(shape) + " of " + std::string(dtype_name(dtype)) +
                                           " does not fill whole bytes");
    }
    return bits / 8;
}

TensorView rows(const TensorView& tensor, std::int64_t first, std::int64_t count) {
    TensorView part = tensor;
    part.shape[0] = count;
    const std::uint64_t row_bytes = byte_count(tensor.dtype, tensor.shape) / static_cast<std::uint64_t>(tensor.rows());
    part.data = tensor.data.subspan(static_cast<std::uint64_t>(first) * row_bytes,
                                    static_cast<std::uint64_t>(count) * row_bytes);
    part.file_offset += static_cast<std::uint64_t>(first) * row_bytes;
    return part;
}

void to_float(const TensorView& tensor, std::uint64_t first, std::span<float> out) {
    const std::byte* data = tensor.data.data() + first * dtype_bits(tensor.dtype) / 8;
    if (out.empty()) return;  // the data pointer of an empty tensor may be null
    switch (tensor.dtype) {
        case Dtype::f32:
            std::memcpy(out.data(), data, out.size_bytes());
            break;
        case Dtype::bf16:
            load_bf16(data, out);
            break;
        case Dtype::f16:
            load_as_float<Eigen::half>(data, out);
            break;
        case Dtype::f64:
            load_as_float<double>(data, out);
            break;
        default:
            throw Error(ErrorCode::unsupported,
                        tensor.file + ": tensor '" + tensor.name + "' is " + std::string(dtype_name(tensor.dtype)) +
                            ", which cannot be computed with; dequantise the checkpoint to BF16, F16 or F32 first");
    }
}

void to_finite_float(const TensorView& tensor, std::uint64_t first, std::span<float> out) {
    to_float(tensor, first, out);
    // No branch per element, so that the loop is vectorised.
    bool finite = true;
    for (const float value : out) finite &= std::abs(value) <= std::numeric_limits<float>::max();
    if (finite) return;
    const auto bad = std::find_if(out.begin(), out.end(), [](float value) { return !std::isfinite(value); });
    throw Error(ErrorCode::numeric, tensor.file + ": tensor '" + tensor.name + "' holds " +
                                        (std::isnan(*bad) ? "NaN" : "infinity") + " at element " +
                                        std::to_string(first + static_cast<std::uint64_t>(bad - out.begin())) +
                                        "; the checkpoint is damaged or was saved from a diverged run");
}

std::vector<float> to_finite_floats(const TensorView& tensor) {
    std::vector<float> values(element_count(tensor.shape));
    to_finite_float(tensor, 0, values);
    return values;
}

void check_finite(const TensorView& tensor) {
    constexpr std::uint64_t kStep = 1U << 14U;
    std::vector<float> values(kStep);
    const std::uint64_t count = element_count(tensor.shape);
    for (std::uint64_t first = 0; first < count; first += kStep) {
        to_finite_float(tensor, first, std::span(values).first(std::min(kStep, count - first)));
    }
}

std::vector<std::byte> from_floats(std::span<const float> values, Dtype dtype, std::string_view what) {
    std::vector<std::byte> bytes(values.size() * dtype_bits(dtype) / 8);
    switch (dtype) {
        case Dtype::f32:
            if (!values.empty()) std::memcpy(bytes.data(), values.data(), values.size_bytes());
            break;
        case Dtype::bf16:
            store_floats<Eigen::bfloat16>(values, bytes.data(), dtype, what);
            break;
        case Dtype::f16:
            store_floats<Eigen::half>(values, bytes.data(), dtype, what);
            break;
        case Dtype::f64:
            store_floats<double>(values, bytes.data(), dtype, what);
            break;
        default:
            throw Error(ErrorCode::unsupported, "cannot write floats as " + std::string(dtype_name(dtype)));
    }
    return bytes;
}

}  // namespace mha2mla
