#pragma once
/// Element types, and typed views of tensors in mapped files.

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace mha2mla {

/// Every element type of the safetensors format. F64, F32, F16 and BF16 can be computed with; the others are only
/// copied.
enum class Dtype : std::uint8_t {
    boolean,
    u8,
    i8,
    f8_e5m2,
    f8_e4m3,
    f8_e8m0,
    f4,
    f6_e2m3,
    f6_e3m2,
    i16,
    u16,
    f16,
    bf16,
    i32,
    u32,
    f32,
    c64,
    f64,
    i64,
    u64,
};

/// The name in a safetensors header, for example "BF16".
[[nodiscard]] std::string_view dtype_name(Dtype dtype);
/// The number of bits of one element; not always a multiple of 8.
[[nodiscard]] unsigned dtype_bits(Dtype dtype);
/// The element type with this name, if there is one.
[[nodiscard]] std::optional<Dtype> parse_dtype(std::string_view name);
/// Whether the type is F64, F32, F16 or BF16.
[[nodiscard]] bool is_compute_dtype(Dtype dtype);

using Shape = std::vector<std::int64_t>;
/// The shape as text, for example "[4096, 1024]".
[[nodiscard]] std::string to_string(const Shape& shape);
/// The number of elements. @throws Error{format} on overflow or a negative dimension.
[[nodiscard]] std::uint64_t element_count(const Shape& shape);
/// The number of bytes of a tensor. @throws Error{format} on overflow or if sub-byte elements do not fill whole bytes.
[[nodiscard]] std::uint64_t byte_count(Dtype dtype, const Shape& shape);

/// A tensor in a mapped file. `data` is valid as long as the file or checkpoint that it belongs to exists.
struct TensorView {
    std::string name;
    Dtype dtype = Dtype::f32;
    Shape shape;
    std::span<const std::byte> data;
    std::string file;               // name of the file, for messages
    std::uint64_t file_offset = 0;  // offset of `data` in the file

    [[nodiscard]] std::int64_t rows() const { return shape.empty() ? 1 : shape.front(); }
    [[nodiscard]] std::int64_t cols() const { return shape.size() < 2 ? 1 : shape[1]; }
};

/// Rows [first, first + count) of a tensor, under its name and with its place in the file.
[[nodiscard]] TensorView rows(const TensorView& tensor, std::int64_t first, std::int64_t count);

/// Converts elements [first, first + out.size()) to float32. @throws Error{unsupported} unless is_compute_dtype.
void to_float(const TensorView& tensor, std::uint64_t first, std::span<float> out);
/// The same. @throws Error{unsupported} as above, Error{numeric} naming the first element that is not finite.
void to_finite_float(const TensorView& tensor, std::uint64_t first, std::span<float> out);
/// Converts all elements. Throws as above.
[[nodiscard]] std::vector<float> to_finite_floats(const TensorView& tensor);
/// Scans all elements in blocks. Throws as above.
void check_finite(const TensorView& tensor);
/// Converts float32 values to bytes of `dtype`, rounding to nearest even.
/// @throws Error{numeric} if a finite value does not fit `dtype`; `what` names the tensor in the message.
[[nodiscard]] std::vector<std::byte> from_floats(std::span<const float> values, Dtype dtype, std::string_view what);

/// The description of a tensor before its data is written.
struct TensorSpec {
    std::string name;
    Dtype dtype = Dtype::f32;
    Shape shape;
};

}  // namespace mha2mla
