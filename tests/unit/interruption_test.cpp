// A conversion that is interrupted at any event leaves nothing that looks finished, and resumes to the same bytes.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <memory>
#include <random>

#include "mha2mla/align.hpp"
#include "mha2mla/convert.hpp"
#include "support/temporary.hpp"
#include "support/tiny_model.hpp"

namespace mha2mla::test {
namespace {

namespace fs = std::filesystem;

/// Cancels when it is asked for the n-th time, and counts how often it was asked.
class CancelAt final : public Observer {
public:
    explicit CancelAt(int n) : n_(n) {}
    [[nodiscard]] bool cancelled() const override { return ++asked_ >= n_; }

private:
    int n_;
    mutable int asked_ = 0;
};

/// Everything but the model card, whose measured times and paths are no part of the weights.
std::map<std::string, std::string> files_in(const fs::path& directory) {
    std::map<std::string, std::string> files;
    for (const auto& entry : fs::directory_iterator(directory)) {
        const std::string name = entry.path().filename().string();
        files[name] = entry.is_directory() ? "" : read_text(entry.path());
    }
    return files;
}

class Interruption : public testing::Test {
protected:
    Interruption() {
        write_tiny_model(directory_ / "model", {.layers = 3, .attention_bias = true});
        source_ = std::make_unique<Model>(Model::open(directory_ / "model"));
        std::mt19937 random(7);
        for (int i = 0; i < 8 * kSeqLen; ++i) windows_.push_back(static_cast<TokenId>(random() % 64));
    }

    /// Converts, or resumes what there is.
    /// @param layout of an aligned conversion; null: stages.
    void run(const LatentLayout* layout, const fs::path& out, bool resume, Observer& observer) const {
        const RunLimits limits{.resume = resume};
        if (layout == nullptr) {
            StagedPlan stages;
            stages.rope = {"uniform", 4, 0};
            stages.kv_rank = 4;
            return void(convert(*source_, out, {stages}, {}, observer, limits));
        }
        const AlignRequest request{{0, 4, 3, {"", 2, 4 * kSeqLen, ""}, layout}, 8, kSeqLen};
        ConversionJob job(*source_, out, {request}, limits);
        if (job.state() == ConversionJob::State::finished) return;
        const auto aligner = job.make_aligner([&] { return windows_; }, observer);
        (void)job.run({nullptr, nullptr, aligner.get()}, observer);
    }

    /// @return number of events at which it was interrupted.
    int interrupt_everywhere(const LatentLayout* layout) const {
        Observer patient;
        run(layout, directory_ / "whole", false, patient);
        const auto whole = files_in(directory_ / "whole");
        constexpr int kMost = 1000;
        for (int n = 1; n < kMost; ++n) {
            const fs::path out = directory_ / ("out" + std::to_string(n));
            CancelAt observer(n);
            try {
                run(layout, out, false, observer);
                EXPECT_EQ(files_in(out), whole);
                return n - 1;
            } catch (const Error& error) {
                EXPECT_EQ(error.code(), ErrorCode::interrupted) << error.what();
            }
            if (fs::exists(out)) {
                for (const auto& [name, content] : files_in(out)) {
                    EXPECT_TRUE(name == ".mha2mla.incomplete" || name.starts_with("mha2mla.")) << name;
                    EXPECT_NE(name, "mha2mla.json");
                }
                EXPECT_THROW((void)Model::open(out), Error);
            }
            run(layout, out, true, patient);
            EXPECT_EQ(files_in(out), whole) << "interrupted at event " << n;
            fs::remove_all(out);
        }
        return kMost;
    }

    static constexpr std::int64_t kSeqLen = 12;
    TemporaryDirectory directory_;
    std::unique_ptr<Model> source_;
    std::vector<TokenId> windows_;
};

TEST_F(Interruption, AtEveryPieceOfAStagedConversion) {
    EXPECT_GT(interrupt_everywhere(nullptr), 20) << "there are 3 layers and 20 other tensors";
}

TEST_F(Interruption, AtEveryStepOfAnAlignedConversion) {
    for (const LatentLayout& layout : latent_layouts()) {
        SCOPED_TRACE(layout.name);
        EXPECT_GT(interrupt_everywhere(&layout), 30);
        fs::remove_all(directory_ / "whole");
    }
}

}  // namespace
}  // namespace mha2mla::test
