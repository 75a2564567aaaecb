// Files that are cut short while they are mapped: what is lost is an error with the file's name, and only if it was
// read.
#include "mha2mla/mapped_file.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <map>
#include <memory>
#include <optional>
#include <random>
#include <thread>

#include "mha2mla/align.hpp"
#include "mha2mla/calibration.hpp"
#include "mha2mla/choices.hpp"
#include "mha2mla/convert.hpp"
#include "mha2mla/evaluate.hpp"
#include "mha2mla/generate.hpp"
#include "support/expect_error.hpp"
#include "support/mapping_table.hpp"
#include "support/output_file.hpp"
#include "support/temporary.hpp"
#include "support/tiny_model.hpp"

namespace mha2mla::test {
namespace {

namespace fs = std::filesystem;

const auto kPage = static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));

/// How other programs make a file shorter.
void shorten(const fs::path& file, std::size_t bytes) { fs::resize_file(file, bytes); }

class MappedFiles : public testing::Test {
protected:
    MappedFiles() {
        survive_shortened_files();
        write_text(file_, std::string(kBytes, 'x'));
    }
    [[nodiscard]] static char at(const MappedFile& file, std::size_t i) {
        return std::to_integer<char>(file.bytes()[i]);
    }
    /// What is wrong, as a later check would say it.
    static void expect_lost(const fs::path& file) {
        expect_error(ErrorCode::io, {file.string(), "changed"}, [] { check_mapped_files(); });
    }

    const std::size_t kBytes = 6 * kPage + 100;
    TemporaryDirectory directory_;
    fs::path file_ = directory_ / "file";
};

TEST_F(MappedFiles, WhatIsLostIsZeroAndAnError) {
    MappedFile file(file_);
    shorten(file_, 2 * kPage);
    EXPECT_EQ(at(file, kPage), 'x');
    EXPECT_NO_THROW(check_mapped_files()) << "nothing was read that is lost";
    EXPECT_EQ(at(file, 4 * kPage), '\0');
    EXPECT_EQ(at(file, 3 * kPage), '\0') << "another page, before the first";
    EXPECT_EQ(at(file, kBytes - 1), '\0');
    EXPECT_EQ(at(file, kPage), 'x');
    expect_lost(file_);
    expect_lost(file_);
    const MappedFile moved = std::move(file);
    expect_lost(file_);
}

TEST_F(MappedFiles, AFileThatWasClosedIsNamedOnce) {
    for (const bool told : {false, true}) {
        write_text(file_, std::string(kBytes, 'x'));
        {
            const MappedFile file(file_);
            shorten(file_, 0);
            EXPECT_EQ(at(file, 0), '\0');
            if (told) expect_lost(file_);
        }
        if (!told) expect_lost(file_);
        EXPECT_NO_THROW(check_mapped_files());
    }
}

TEST_F(MappedFiles, TheEndOfTheLastPageIsMissedToo) {
    if (::access("/proc/self/pagemap", R_OK) != 0) GTEST_SKIP() << "the system does not tell which pages were read";
    const MappedFile file(file_);
    shorten(file_, kBytes - 50);
    EXPECT_NO_THROW(check_mapped_files());
    EXPECT_EQ(at(file, kBytes - 1), '\0') << "without any fault";
    expect_lost(file_);
}

TEST_F(MappedFiles, TheEndOfTheLastPageIsMissedWhenThePageWasGivenBack) {
    if (::access("/proc/self/pagemap", R_OK) != 0) GTEST_SKIP() << "the system does not tell which pages were read";
    const MappedFile file(file_);
    shorten(file_, kBytes - 50);
    EXPECT_EQ(at(file, kBytes - 1), '\0');
    file.done_with(file.bytes());
    expect_lost(file_);
}

TEST_F(MappedFiles, OnlyTheFileThatWasShortenedIsNamed) {
    std::vector<std::unique_ptr<MappedFile>> files;
    for (int i = 0; i < 40; ++i) {
        const fs::path path = directory_ / std::to_string(i);
        write_text(path, std::string(kBytes, 'y'));
        files.push_back(std::make_unique<MappedFile>(path));
    }
    for (int i = 0; i < 40; i += 2) files[static_cast<std::size_t>(i)].reset();
    shorten(directory_ / "7", 0);
    shorten(directory_ / "9", 0);
    EXPECT_EQ(at(*files[9], kPage), '\0');
    expect_lost(directory_ / "9");
    files[9].reset();
    EXPECT_NO_THROW(check_mapped_files());
}

TEST_F(MappedFiles, ThreadsMayReadWhatIsLostAtTheSameTime) {
    const std::size_t pages = 2000;
    for (int trial = 0; trial < 20; ++trial) {
        write_text(file_, std::string(pages * kPage, 'x'));
        const MappedFile file(file_);
        std::vector<std::thread> threads;
        std::atomic<std::size_t> sum = 0;
        for (std::size_t t = 0; t < 4; ++t) {
            threads.emplace_back([&, t] {
                for (std::size_t i = t; i < pages; i += 4) sum += at(file, (i * 7919) % pages * kPage) == 'x' ? 1 : 0;
            });
        }
        shorten(file_, 10 * kPage);
        for (auto& thread : threads) thread.join();
        const bool lost = sum < pages;
        if (lost) expect_lost(file_);
        EXPECT_NO_THROW(if (!lost) check_mapped_files());
    }
}

TEST_F(MappedFiles, WritingWhatIsLostIsNotMistakenForAnUnwritableOutput) {
    for (const std::size_t left : {std::size_t{0}, kPage, kPage + 10}) {
        write_text(file_, std::string(300 * kPage, 'x'));
        const MappedFile file(file_);
        shorten(file_, left);
        CopyBuffer buffer;
        OutputFile copied(directory_ / "copied"), written(directory_ / "written");
        (void)copied.copy_at(0, file.descriptor(), 0, file.bytes(), buffer);
        written.write_at(0, file.bytes());
        written.write_at(0, file.bytes(), buffer);
        expect_error(ErrorCode::io, {file_.string()}, [&] { copied.publish(); });
        expect_error(ErrorCode::io, {file_.string()}, [&] { written.publish(); });
    }
    EXPECT_FALSE(fs::exists(directory_ / "copied"));
}

/// Shortens a file when the n-th step of an operation is reported.
class ShortenAt final : public Observer {
public:
    ShortenAt(fs::path file, int n) : file_(std::move(file)), n_(n) {}
    [[nodiscard]] bool cancelled() const override {
        if (++asked_ == n_) shorten(file_, 5000);
        return false;
    }
    [[nodiscard]] bool reached() const { return asked_ >= n_; }

private:
    fs::path file_;
    int n_;
    mutable int asked_ = 0;
};

class ShortenedModel : public MappedFiles {
protected:
    ShortenedModel() {
        write_tiny_model(directory_ / "model", {.layers = 3, .hidden = 64, .vocab = 64});
        whole_ = read_text(weights_);
        std::mt19937 random(3);
        for (int i = 0; i < 8 * kSeqLen; ++i) ids_.push_back(static_cast<TokenId>(random() % 64));
    }
    void mend() const { write_text(weights_, whole_); }

    /// Runs the work with weights that are shortened at each step in turn: it succeeds with the same result, or fails
    /// with the name of the file.
    /// @return how often it failed
    template <typename Work>
    int shorten_everywhere(const Work& work) {
        mend();
        Observer patient;
        const auto expected = work(Model::open(directory_ / "model"), patient);
        int failed = 0;
        for (int n = 1; n < 1000; ++n) {
            mend();
            const Model model = Model::open(directory_ / "model");
            ShortenAt observer(weights_, n);
            try {
                const auto result = work(model, observer);
                EXPECT_EQ(result, expected) << "shortened at step " << n << " and not noticed";
            } catch (const Error& error) {
                ++failed;
                EXPECT_NE(std::string(error.what()).find("model.safetensors"), std::string::npos) << error.what();
            }
            if (!observer.reached() || HasFailure()) break;
        }
        return failed;
    }

    static constexpr std::int64_t kSeqLen = 16;
    fs::path weights_ = directory_ / "model/model.safetensors";
    std::string whole_;
    std::vector<TokenId> ids_;
};

TEST_F(ShortenedModel, Evaluation) {
    EXPECT_GT(shorten_everywhere([&](const Model& model, Observer& observer) {
                  return with_errors([&] { return evaluate(model, ids_, kSeqLen, observer).nll; });
              }),
              1);
    EXPECT_GT(shorten_everywhere([&](const Model& model, Observer& observer) {
                  return with_errors([&] { return evaluate(model, ids_, kSeqLen, {}, observer).nll; });
              }),
              0);
}

TEST_F(ShortenedModel, Calibration) {
    EXPECT_GT(shorten_everywhere([&](const Model& model, Observer& observer) {
                  return with_errors([&] { return calibrate(model, ids_, kSeqLen, observer).scores(); });
              }),
              1);
}

TEST_F(ShortenedModel, Generation) {
    EXPECT_GT(shorten_everywhere([&](const Model& model, Observer& observer) {
                  GenerateOptions options;
                  options.max_new_tokens = 8;
                  const std::vector<std::vector<TokenId>> prompts = {{1, 2, 3}};
                  return with_errors([&] { return generate(model, prompts, options, observer, {}).sequences[0].ids; });
              }),
              1);
}

std::map<std::string, std::string> files_in(const fs::path& directory) {
    std::map<std::string, std::string> files;
    for (const auto& entry : fs::directory_iterator(directory)) {
        files[entry.path().filename().string()] = entry.is_directory() ? "" : read_text(entry.path());
    }
    return files;
}

TEST_F(ShortenedModel, AConversionKeepsItsPieces) {
    StagedPlan stages;
    stages.rope = {"uniform", 4, 0};
    stages.kv_rank = 4;
    const auto run = [&](const fs::path& out, Observer& observer) {
        return convert(Model::open(directory_ / "model"), out, {stages}, {}, observer, {.resume = true});
    };
    Observer patient;
    (void)run(directory_ / "whole", patient);
    const auto whole = files_in(directory_ / "whole");
    int failed = 0;
    std::int64_t resumed = 0;
    for (int n = 1; n < 1000; ++n) {
        const fs::path out = directory_ / ("out" + std::to_string(n));
        ShortenAt observer(weights_, n);
        try {
            (void)run(out, observer);
        } catch (const Error& error) {
            ++failed;
            EXPECT_NE(std::string(error.what()).find("model.safetensors"), std::string::npos) << error.what();
            EXPECT_FALSE(fs::exists(out / "config.json"));
            mend();
            resumed = std::max(resumed, run(out, patient).pieces_resumed);
        }
        EXPECT_EQ(files_in(out), whole) << "shortened at step " << n;
        mend();
        if (!observer.reached() || HasFailure()) break;
        fs::remove_all(out);
    }
    EXPECT_GT(failed, 1);
    EXPECT_GT(resumed, 1);
}

}  // namespace
}  // namespace mha2mla::test
