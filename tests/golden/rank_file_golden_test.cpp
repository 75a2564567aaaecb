// Rank files of the reference implementation, and reading of our files by PyTorch.
#include <cstdlib>

#include "mha2mla/atomic_file.hpp"
#include "mha2mla/rope.hpp"
#include "support/shared.hpp"
#include "support/temporary.hpp"

namespace mha2mla::test {
namespace {

TEST(RankFileGolden, PublishedFilesHaveTheShapesOfTheirModels) {
    MHA2MLA_NEEDS_SHARED("golden/reference_ranks");
    const auto shape = [](const char* name) {
        const PairRanks ranks = read_rank_file(shared("golden/reference_ranks") / name);
        return Shape{ranks.layers, ranks.kv_heads, ranks.head_dim};
    };
    EXPECT_EQ(shape("smollm1_135M-2_norm_rank.pth"), (Shape{30, 3, 64}));
    EXPECT_EQ(shape("smollm1_360M-2_norm_rank.pth"), (Shape{32, 5, 64}));
    EXPECT_EQ(shape("qwen2_0.5B-2_norm_rank.pth"), (Shape{24, 2, 64}));
}

TEST(RankFileGolden, WhatWeWriteReadsBackEqual) {
    MHA2MLA_NEEDS_SHARED("golden/reference_ranks");
    const PairRanks ranks = read_rank_file(shared("golden/reference_ranks/smollm1_360M-2_norm_rank.pth"));
    const TemporaryDirectory directory;
    const auto path = directory.path() / "ranks.pth";
    write_file_atomically(path, rank_file_bytes(ranks));
    EXPECT_EQ(read_rank_file(path).values, ranks.values);
    EXPECT_EQ(rank_file_bytes(ranks), read_text(path));  // the same bytes every time
}

TEST(RankFileGolden, TorchLoadsWhatWeWrite) {
    MHA2MLA_NEEDS_SHARED("golden/reference_ranks");
    MHA2MLA_NEEDS_DOWNLOAD("venv/requirements");
    const auto reference = shared("golden/reference_ranks/smollm1_135M-2_norm_rank.pth");
    const TemporaryDirectory directory;
    const auto path = directory.path() / "ranks.pth";
    write_file_atomically(path, rank_file_bytes(read_rank_file(reference)));
    const std::string command = "'" + downloaded("venv/bin/python").string() +
                                "' -c 'import sys, torch; a, b = map(torch.load, sys.argv[1:]); "
                                "sys.exit(not (a.dtype == b.dtype and torch.equal(a, b)))' '" +
                                path.string() + "' '" + reference.string() + "'";
    EXPECT_EQ(std::system(command.c_str()), 0);
}

}  // namespace
}  // namespace mha2mla::test
