#include <algorithm>
#include <chrono>
#include <numeric>
#include <optional>
#include <thread>

#include "mha2mla/checkpoint.hpp"
#include "mha2mla/checkpoint_writer.hpp"
#include "mha2mla/error.hpp"
#include "support/expect_error.hpp"
#include "support/output_file.hpp"
#include "support/shared.hpp"
#include "support/temporary.hpp"

namespace mha2mla::test {
namespace {

namespace fs = std::filesystem;

std::vector<std::string> names_in(const fs::path& directory) {
    std::vector<std::string> names;
    for (const auto& entry : fs::directory_iterator(directory)) names.push_back(entry.path().filename().string());
    std::sort(names.begin(), names.end());
    return names;
}

std::vector<std::byte> pattern(std::size_t size, int seed) {
    std::vector<std::byte> bytes(size);
    for (std::size_t i = 0; i < size; ++i) bytes[i] = static_cast<std::byte>(i * 7 + static_cast<std::size_t>(seed));
    return bytes;
}

/// Three tensors, of which any two exceed the shard size.
const std::vector<TensorSpec> kSpecs = {
    {"a", Dtype::u8, {3}}, {"b", Dtype::f32, {2, 5}}, {"c", Dtype::bf16, {30}}, {"empty", Dtype::f32, {0, 4}}};
const std::vector<std::size_t> kSizes = {3, 40, 60, 0};

void write_all(CheckpointWriter& writer) {
    for (std::size_t i = kSpecs.size(); i-- > 0;) writer.write(kSpecs[i].name, pattern(kSizes[i], static_cast<int>(i)));
    writer.add_file("config.json", "{}");
}

TEST(Writer, OutputReadsBackForEveryShardSize) {
    for (const std::uint64_t shard_size : {std::uint64_t{1}, std::uint64_t{64}, std::uint64_t{5'000'000'000}}) {
        const TemporaryDirectory directory;
        const fs::path out = directory.path() / "out";
        CheckpointWriter writer(out, kSpecs, {shard_size, false});
        write_all(writer);
        EXPECT_FALSE(fs::exists(out / "config.json")) << "nothing is visible before commit";
        writer.commit();
        const Checkpoint checkpoint = Checkpoint::open(out);
        for (std::size_t i = 0; i < kSpecs.size(); ++i) {
            const TensorView* view = checkpoint.find(kSpecs[i].name);
            ASSERT_NE(view, nullptr);
            EXPECT_EQ(view->shape, kSpecs[i].shape);
            EXPECT_EQ(view->dtype, kSpecs[i].dtype);
            const auto expected = pattern(kSizes[i], static_cast<int>(i));
            EXPECT_TRUE(std::equal(expected.begin(), expected.end(), view->data.begin(), view->data.end()));
            EXPECT_EQ(view->file_offset % (dtype_bits(view->dtype) / 8), 0U) << "aligned";
        }
        EXPECT_EQ(checkpoint.files().size(), shard_size == 1 ? 3U : shard_size == 64 ? 2U : 1U);
    }
}

TEST(Writer, WithoutCommitNothingIsLeft) {
    const TemporaryDirectory directory;
    const fs::path out = directory.path() / "out";
    {
        CheckpointWriter writer(out, kSpecs, {});
        writer.write("a", pattern(3, 0));
    }
    EXPECT_FALSE(fs::exists(out));
}

TEST(Writer, CommitRefusesAnIncompleteCheckpoint) {
    const TemporaryDirectory directory;
    CheckpointWriter writer(directory.path() / "out", kSpecs, {});
    writer.write("a", pattern(3, 0));
    expect_error(ErrorCode::usage, {"'b'", "never written"}, [&] { writer.commit(); });
    expect_error(ErrorCode::usage, {"'a'", "twice"}, [&] { writer.write("a", pattern(3, 0)); });
    expect_error(ErrorCode::usage, {"'d'", "not announced"}, [&] { writer.write("d", pattern(3, 0)); });
}

TEST(Writer, OverwriteLeavesNoOldWeightBehind) {
    const TemporaryDirectory directory;
    const fs::path out = directory.path() / "out";
    {
        CheckpointWriter writer(out, kSpecs, {1, false});
        write_all(writer);
        writer.commit();
    }
    write_text(out / "notes.txt", "keep me");
    expect_error(ErrorCode::io, {out.string(), "overwriting"}, [&] { CheckpointWriter writer(out, kSpecs, {}); });
    {
        CheckpointWriter writer(out, kSpecs, {5'000'000'000, true});
        write_all(writer);
        writer.commit();
    }
    EXPECT_EQ(names_in(out), (std::vector<std::string>{"config.json", "model.safetensors", "notes.txt"}));
}

TEST(Writer, AnAbandonedOverwriteKeepsTheOldCheckpoint) {
    const TemporaryDirectory directory;
    const fs::path out = directory.path() / "out";
    {
        CheckpointWriter writer(out, kSpecs, {});
        write_all(writer);
        writer.commit();
    }
    const std::string before = read_text(out / "model.safetensors");
    {
        CheckpointWriter writer(out, kSpecs, {5'000'000'000, true});
        writer.write("a", pattern(3, 9));
    }
    EXPECT_EQ(read_text(out / "model.safetensors"), before);
    EXPECT_EQ(names_in(out), (std::vector<std::string>{"config.json", "model.safetensors"}));
}

TEST(Writer, CopiesBytesFromAnotherCheckpoint) {
    const TemporaryDirectory directory;
    const Checkpoint source = Checkpoint::open(example("kjv-1.8M"));
    std::vector<TensorSpec> specs;
    for (const auto& tensor : source.files()[0].tensors()) specs.push_back({tensor.name, tensor.dtype, tensor.shape});
    CheckpointWriter writer(directory.path() / "out", specs, {});
    for (const auto& tensor : source.files()[0].tensors()) writer.copy(tensor.name, tensor, source.files()[0]);
    writer.commit();
    const Checkpoint copy = Checkpoint::open(directory.path() / "out");
    for (const auto& tensor : source.files()[0].tensors()) {
        EXPECT_TRUE(std::ranges::equal(tensor.data, copy.find(tensor.name)->data)) << tensor.name;
    }
}

/// The file that is published is the one that its writer wrote, whoever else writes to the name.
TEST(OutputFiles, OneAtATimeWritesToAName) {
    const TemporaryDirectory directory;
    const auto path = directory / "out.gguf";
    const auto write = [](OutputFile& file, std::string_view text) {
        file.write_at(0, std::as_bytes(std::span(text)));
    };
    std::optional<OutputFile> first;
    first.emplace(path);
    write(*first, "first, and longer");
    expect_error(ErrorCode::io, {"out.gguf", "another process"}, [&] { const OutputFile second(path); });
    // One that waits is served when the other is done, and begins with nothing.
    std::thread later([&] {
        std::this_thread::sleep_for(std::chrono::milliseconds(200));
        first->publish();
    });
    OutputFile second(path);
    later.join();
    EXPECT_EQ(read_text(path), "first, and longer");
    write(second, "second");
    EXPECT_EQ(read_text(path), "first, and longer");
    second.publish();
    EXPECT_EQ(read_text(path), "second");
    EXPECT_FALSE(std::filesystem::exists(path.string() + ".incomplete"));
}

}  // namespace
}  // namespace mha2mla::test
