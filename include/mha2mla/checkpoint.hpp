#pragma once
/// Stage 1: a Hugging Face checkpoint directory as memory-mapped, validated, zero-copy tensor views.
///
/// Thread-safety: everything here is immutable after it was opened and may be read from several threads.

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace mha2mla {

/// Every element type of the safetensors format. F64, F32, F16 and BF16 compute; the others are only copied.
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
/// Bits of one element; not always a multiple of 8.
[[nodiscard]] unsigned dtype_bits(Dtype dtype);
[[nodiscard]] std::optional<Dtype> parse_dtype(std::string_view name);
/// F64, F32, F16, BF16.
[[nodiscard]] bool is_compute_dtype(Dtype dtype);

using Shape = std::vector<std::int64_t>;
/// "[4096, 1024]"
[[nodiscard]] std::string to_string(const Shape& shape);
/// Number of elements. @throws Error{format} on overflow or a negative dimension.
[[nodiscard]] std::uint64_t element_count(const Shape& shape);
/// Bytes of a whole tensor. @throws Error{format} on overflow or if sub-byte elements do not fill whole bytes.
[[nodiscard]] std::uint64_t byte_count(Dtype dtype, const Shape& shape);

/// A tensor that lives in a mapped file. `data` is valid while the file or checkpoint it came from lives.
struct TensorView {
    std::string name;
    Dtype dtype = Dtype::f32;
    Shape shape;
    std::span<const std::byte> data;
    std::string file;               // file name, for messages
    std::uint64_t file_offset = 0;  // of `data` in the file

    [[nodiscard]] std::int64_t rows() const { return shape.empty() ? 1 : shape.front(); }
    [[nodiscard]] std::int64_t cols() const { return shape.size() < 2 ? 1 : shape[1]; }
};

/// Elements [first, first + out.size()) as float32. @throws Error{unsupported} unless is_compute_dtype.
void to_float(const TensorView& tensor, std::uint64_t first, std::span<float> out);
/// The same. @throws Error{unsupported} as above, Error{numeric} naming the first element that is not finite.
void to_finite_float(const TensorView& tensor, std::uint64_t first, std::span<float> out);
/// All elements. Throws as above.
[[nodiscard]] std::vector<float> to_finite_floats(const TensorView& tensor);
/// Looks at all elements a little at a time. Throws as above.
void check_finite(const TensorView& tensor);
/// float32 to bytes of `dtype`, rounding to nearest even.
/// @throws Error{numeric} if a finite value does not fit `dtype`; `what` names the tensor in the message.
[[nodiscard]] std::vector<std::byte> from_floats(std::span<const float> values, Dtype dtype, std::string_view what);

/// What a safetensors header says, in the order of the data. Offsets count from the start of the data section.
struct SafetensorsHeader {
    struct Entry {
        std::string name;
        Dtype dtype = Dtype::f32;
        Shape shape;
        std::uint64_t begin = 0, end = 0;
    };
    std::vector<Entry> entries;
    std::map<std::string, std::string> metadata;
    std::uint64_t data_start = 0;  // offset of the data section in the file
};

/// Checks every rule of the safetensors format on the bytes of a whole file, and reads the header.
/// Rules: 8-byte length <= 100,000,000; a UTF-8 JSON object; known dtypes; shape x dtype = byte range; ranges
/// without gap or overlap up to the end of the file; no name twice; `__metadata__` a string map or null.
/// @throws Error{format} naming `file_name` and the tensor.
[[nodiscard]] SafetensorsHeader validate(std::span<const std::byte> file, std::string_view file_name);

/// A read-only memory map of a whole regular file.
class MappedFile {
public:
    /// @throws Error{io} if it is missing, not a regular file, or cannot be mapped.
    explicit MappedFile(const std::filesystem::path& path);
    ~MappedFile();
    MappedFile(MappedFile&& other) noexcept;
    MappedFile& operator=(MappedFile&& other) noexcept;
    MappedFile(const MappedFile&) = delete;
    MappedFile& operator=(const MappedFile&) = delete;

    [[nodiscard]] std::span<const std::byte> bytes() const { return {data_, size_}; }
    [[nodiscard]] int descriptor() const { return descriptor_; }

    /// Asks the system to read `part` of bytes() ahead. Only a hint.
    void will_need(std::span<const std::byte> part) const;
    /// Gives the memory of `part` of bytes() back; it can still be read, and then comes from the file again.
    void done_with(std::span<const std::byte> part) const;

private:
    const std::byte* data_ = nullptr;
    std::size_t size_ = 0;
    int descriptor_ = -1;
};

/// One validated safetensors file. Movable; views stay valid when it moves.
class SafetensorsFile {
public:
    /// @throws Error{io}, Error{format}
    explicit SafetensorsFile(const std::filesystem::path& path);
    [[nodiscard]] const std::vector<TensorView>& tensors() const { return tensors_; }
    [[nodiscard]] const TensorView* find(std::string_view name) const;
    [[nodiscard]] const std::map<std::string, std::string>& metadata() const { return metadata_; }
    [[nodiscard]] const MappedFile& file() const { return file_; }
    [[nodiscard]] const std::filesystem::path& path() const { return path_; }

private:
    std::filesystem::path path_;
    MappedFile file_;
    std::vector<TensorView> tensors_;
    std::map<std::string, std::string> metadata_;
};

/// The tensors of a checkpoint directory: `model.safetensors`, or the shards of `model.safetensors.index.json`.
class Checkpoint {
public:
    /// @throws Error{io} if the directory or a shard is missing, Error{format} if a file breaks its rules.
    static Checkpoint open(const std::filesystem::path& directory);

    [[nodiscard]] const std::filesystem::path& directory() const { return directory_; }
    [[nodiscard]] const std::vector<SafetensorsFile>& files() const { return files_; }
    [[nodiscard]] const TensorView* find(std::string_view name) const;
    /// The file that holds `tensor`, for copying. `tensor` must come from this checkpoint.
    [[nodiscard]] const SafetensorsFile& file_of(const TensorView& tensor) const;
    /// Reads a tensor of this checkpoint ahead, and gives its memory back: hints, see MappedFile.
    void will_need(const TensorView& tensor) const { file_of(tensor).file().will_need(tensor.data); }
    void done_with(const TensorView& tensor) const { file_of(tensor).file().done_with(tensor.data); }

private:
    std::filesystem::path directory_;
    std::vector<SafetensorsFile> files_;
    std::map<std::string, std::pair<std::size_t, std::size_t>, std::less<>> by_name_;  // name -> (file, tensor)
};

/// A tensor that a writer is going to be given.
struct TensorSpec {
    std::string name;
    Dtype dtype = Dtype::f32;
    Shape shape;
};

/// @throws Error{io} if `directory` exists and is not an empty directory, unless it may be overwritten.
void check_output_directory(const std::filesystem::path& directory, bool overwrite);

/// Writes a checkpoint directory whose layout is known beforehand, in any order of tensors and from several
/// threads, and makes it visible all at once: every file is written under a temporary name, flushed to disk and
/// renamed by commit(), config.json last. Without commit() the destructor removes what was written, unless keep() was
/// called: then a writer of the same layout can go on with it.
class CheckpointWriter {
public:
    struct Options {
        std::uint64_t max_shard_bytes = 5'000'000'000;
        bool overwrite = false;  // replace a directory that holds files
        bool resume = false;     // go on with what a writer of the same layout left; take_over() says which tensors
    };
    struct FileRecord {
        std::string name;  // final name
        std::uint64_t bytes = 0;
        std::string hash;                            // of its bytes; empty for a weight file
        std::map<std::string, std::string> tensors;  // of a weight file: name -> hash of its data
    };

    /// Creates `directory` and lays out the shards in the order of `tensors`.
    /// @throws Error{io} if it exists and is not empty (unless overwrite), or if there is not enough space.
    CheckpointWriter(const std::filesystem::path& directory, std::vector<TensorSpec> tensors, const Options& options);
    ~CheckpointWriter();
    CheckpointWriter(const CheckpointWriter&) = delete;
    CheckpointWriter& operator=(const CheckpointWriter&) = delete;
    CheckpointWriter(CheckpointWriter&&) = delete;
    CheckpointWriter& operator=(CheckpointWriter&&) = delete;

    /// Gives a tensor its data. Each tensor exactly once. @throws Error{io} if the disk is full.
    void write(std::string_view name, std::span<const std::byte> data);
    /// Gives a tensor the part of its data that starts at byte `offset`; parts in order, without gaps.
    void write_part(std::string_view name, std::uint64_t offset, std::span<const std::byte> data);
    /// The same from a mapped file, a little at a time and past the page cache where the file system can.
    void copy(std::string_view name, const TensorView& source, const SafetensorsFile& file);
    /// Adds a small file such as config.json; renamed after the weights, config.json last of all.
    void add_file(const std::string& file_name, std::string_view content);
    void copy_file(const std::string& file_name, const std::filesystem::path& source);

    /// Hash of the data that a tensor was given as a whole.
    [[nodiscard]] std::string hash_of(std::string_view name) const;
    /// With Options::resume: reads tensors back that an earlier writer wrote. If the data of all have the hashes given,
    /// they count as written; otherwise all are still to be written. @return whether they have.
    bool take_over(const std::map<std::string, std::string>& hashes);
    /// Flushes the files of these tensors to disk. May run while other tensors are written.
    void flush(std::span<const std::string> names);
    /// Leaves the weights under their temporary names when the writer is destroyed without commit().
    void keep();

    /// Files so far: the weights, then what was added.
    [[nodiscard]] std::size_t file_count() const;
    /// Flushes file `i` and reads it back. Different files may be finished by different threads. @throws Error{io}
    [[nodiscard]] FileRecord finish_file(std::size_t i);
    /// Checks that every tensor was written, flushes and renames. @throws Error{io}
    void commit();

    [[nodiscard]] std::uint64_t total_bytes() const;  ///< of all shards, headers included

private:
    struct Impl;
    std::unique_ptr<Impl> impl_;
};

/// Writes one safetensors file atomically (temporary name, flush, rename).
/// @param data called for each tensor in turn, so that not all need be in memory: what it returns lives until the next.
void write_safetensors(const std::filesystem::path& path, const std::vector<TensorSpec>& tensors,
                       const std::function<std::span<const std::byte>(std::size_t)>& data,
                       const std::map<std::string, std::string>& metadata);

/// Writes one small file atomically. @throws Error{io}
void write_file_atomically(const std::filesystem::path& path, std::string_view content);

}  // namespace mha2mla
