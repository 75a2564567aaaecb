// Whatever fails while an output is written and published, the old output or the new one is there as a whole.
#include <gtest/gtest.h>

#include <atomic>
#include <cerrno>
#include <functional>
#include <map>
#include <memory>
#include <new>

#include "mha2mla/convert.hpp"
#include "mha2mla/record.hpp"
#include "support/expect_error.hpp"
#include "support/file_operations.hpp"
#include "support/temporary.hpp"
#include "support/tiny_model.hpp"

namespace mha2mla::test {
namespace {

namespace fs = std::filesystem;
using Files = std::map<std::string, std::string>;

/// Makes file operations fail, from the constructor to the destructor.
class Faults {
public:
    enum class Kind : std::uint8_t {
        once,           // one operation fails
        from_then_on,   // and all that follow, which leaves on disk what a kill leaves
        out_of_memory,  // opening or flushing a file throws
    };
    Faults(int first, Kind kind) {
        first_ = first, kind_ = kind, count_ = 0;
        files::fault = &Faults::ask;
    }
    ~Faults() { files::fault = nullptr; }
    Faults(const Faults&) = delete;
    Faults& operator=(const Faults&) = delete;
    Faults(Faults&&) = delete;
    Faults& operator=(Faults&&) = delete;

    [[nodiscard]] bool reached() const { return count_ >= first_; }

private:
    static int ask(files::Operation operation) {
        if (kind_ == Kind::out_of_memory && operation != files::Operation::open &&
            operation != files::Operation::flush) {
            return 0;
        }
        const int asked = ++count_;
        if (asked < first_ || (asked > first_ && kind_ != Kind::from_then_on)) return 0;
        if (kind_ == Kind::out_of_memory) throw std::bad_alloc();
        return EIO;
    }
    static inline std::atomic<int> first_ = 0, count_ = 0;
    static inline std::atomic<Kind> kind_ = Kind::once;
};

/// All that is in a directory; of the directories in it only the names.
Files all_files(const fs::path& directory) {
    Files files;
    if (!fs::exists(directory)) return files;
    for (const auto& entry : fs::directory_iterator(directory)) {
        files[entry.path().filename().string()] = entry.is_directory() ? "" : read_text(entry.path());
    }
    return files;
}

/// Without what only an unfinished conversion has.
Files visible_files(const fs::path& directory) {
    Files files = all_files(directory);
    std::erase_if(files, [](const auto& file) {
        return file.first.starts_with(".mha2mla.") || file.first == "mha2mla.journal.jsonl";
    });
    return files;
}

class Publishing : public testing::Test {
protected:
    Publishing() {
        write_tiny_model(directory_ / "model", {.layers = 2});
        write_text(directory_ / "model/README.md", "of the source");
        source_ = std::make_unique<Model>(Model::open(directory_ / "model"));
        run("new", kNew, {});
        run("old", kOld, {.max_shard_bytes = 20'000});
        write_text(directory_ / "old/notes.txt", "the user's own");
        new_ = all_files(directory_ / "new");
        old_ = all_files(directory_ / "old");
        new_in_old_ = new_;
        new_in_old_["notes.txt"] = old_.at("notes.txt");
    }

    ConvertReport run(const std::string& out, std::int64_t kv_rank, const RunLimits& limits) const {
        StagedPlan stages;
        stages.rope = {"uniform", 4, 0};
        stages.kv_rank = kv_rank;
        Observer observer;
        return convert(*source_, directory_ / out, {stages}, {}, observer, limits);
    }

    void prepare(const std::string& out, bool old) const {
        fs::remove_all(directory_ / out);
        if (old) fs::copy(directory_ / "old", directory_ / out);
    }

    /// Lets every operation fail in turn.
    /// @return their number
    int fail_everywhere(Faults::Kind kind, bool old, bool resume) const {
        const RunLimits limits{.overwrite = old, .resume = resume};
        const Files whole = old ? new_in_old_ : new_;
        constexpr int kMost = 1000;
        for (int k = 1; k < kMost; ++k) {
            SCOPED_TRACE("operation " + std::to_string(k) + (old ? ", overwriting" : "") +
                         (resume ? ", resuming" : ""));
            prepare("out", old);
            bool failed = false;
            bool reached = false;
            {
                const Faults faults(k, kind);
                try {
                    (void)run("out", kNew, limits);
                } catch (const Error& error) {
                    failed = true;
                    EXPECT_EQ(error.code(), ErrorCode::io) << error.what();
                    if (kind == Faults::Kind::out_of_memory) {
                        EXPECT_NE(std::string(error.what()).find("out of memory"), std::string::npos) << error.what();
                    }
                }
                reached = faults.reached();
            }
            const Files after = visible_files(directory_ / "out");
            const bool complete = after == whole;
            if (!failed) {
                EXPECT_TRUE(complete);
            } else if (kind != Faults::Kind::from_then_on || after.contains("config.json")) {
                EXPECT_TRUE(complete || after == (old ? old_ : Files())) << "neither the old output nor the new one";
            }
            if (!reached) return k - 1;
            const RunLimits again{.overwrite = old, .resume = true};
            EXPECT_NO_THROW((void)run("out", kNew, again));
            EXPECT_EQ(all_files(directory_ / "out"), whole) << "after the same again";
            if (testing::Test::HasFailure()) return k;
        }
        return kMost;
    }

    static constexpr std::int64_t kNew = 4, kOld = 8;
    TemporaryDirectory directory_{directory_in_memory()};
    std::unique_ptr<Model> source_;
    Files new_, old_, new_in_old_;
};

TEST_F(Publishing, OneFailureLeavesTheOldOutputOrTheNewOne) {
    EXPECT_GT(fail_everywhere(Faults::Kind::once, false, false), 30);
    for (const bool resume : {false, true}) EXPECT_GT(fail_everywhere(Faults::Kind::once, true, resume), 30);
}

TEST_F(Publishing, TheSameAgainMendsWhatAKillLeaves) {
    for (const bool old : {false, true}) EXPECT_GT(fail_everywhere(Faults::Kind::from_then_on, old, true), 30);
}

TEST_F(Publishing, OutOfMemoryLeavesTheOldOutputOrTheNewOne) {
    for (const bool old : {false, true}) EXPECT_GT(fail_everywhere(Faults::Kind::out_of_memory, old, true), 10);
}

TEST_F(Publishing, OutOfMemoryKeepsFinishedPieces) {
    std::int64_t most = 0;
    for (int k = 1; k < 60; ++k) {
        prepare("out", false);
        try {
            const Faults faults(k, Faults::Kind::out_of_memory);
            (void)run("out", kNew, {.resume = true});
            break;
        } catch (const Error&) {
            // its message is checked above
        }
        most = std::max(most, run("out", kNew, {.resume = true}).pieces_resumed);
    }
    EXPECT_GT(most, 10);
}

TEST_F(Publishing, OverwritingGoesOnAfterAKillUnderOtherSettings) {
    for (int k = 1; k < 1000; ++k) {
        prepare("out", true);
        bool reached = false;
        {
            const Faults faults(k, Faults::Kind::from_then_on);
            try {
                (void)run("out", kOld, {.max_shard_bytes = 30'000, .overwrite = true});
            } catch (const Error&) {
                // as after a kill, nobody is left to report it
            }
            reached = faults.reached();
        }
        if (!reached) break;
        (void)run("out", kNew, {.overwrite = true});
        ASSERT_EQ(all_files(directory_ / "out"), new_in_old_) << "operation " << k;
    }
}

TEST_F(Publishing, ResumingNeverReplacesAFinishedOutput) {
    for (const std::string journal : {"", "no journal", "no journal\n", "{}\n", "{\"format\": \"mha2mla journal 1\"}\n",
                                      "{\"format\": \"mha2mla journal 1\", \"fingerprint\": 5}\n"}) {
        SCOPED_TRACE(journal);
        prepare("out", true);
        write_text(directory_ / "out/mha2mla.journal.jsonl", journal);
        expect_error(ErrorCode::io, {"not empty"}, [&] { (void)run("out", kNew, {.resume = true}); });
        EXPECT_EQ(visible_files(directory_ / "out"), old_);
        EXPECT_TRUE(run("out", kOld, {.max_shard_bytes = 20'000, .resume = true}).already_finished);
        EXPECT_EQ(all_files(directory_ / "out"), old_) << "and the journal is no longer there";
    }
    prepare("out", true);
    fs::remove(directory_ / "out/mha2mla.json");  // a checkpoint that others made
    write_text(directory_ / "out/mha2mla.journal.jsonl", "");
    expect_error(ErrorCode::io, {"not empty"}, [&] { (void)run("out", kNew, {.resume = true}); });
}

TEST_F(Publishing, AnOutputThatAnotherProcessFinishedMeanwhileStays) {
    StagedPlan stages;
    stages.rope = {"uniform", 4, 0};
    stages.kv_rank = kNew;
    Observer observer;
    for (const bool old : {false, true}) {
        for (const bool resume : {false, true}) {
            prepare("out", old);
            ConversionJob late(*source_, directory_ / "out", {stages}, {.overwrite = old, .resume = resume});
            (void)run("out", kOld, {.max_shard_bytes = 20'000, .overwrite = old});
            const Files before = all_files(directory_ / "out");
            expect_error(ErrorCode::io, {"another process"}, [&] { (void)late.run({}, observer); });
            EXPECT_EQ(all_files(directory_ / "out"), before);
        }
    }
    prepare("out", false);
    ConversionJob late(*source_, directory_ / "out", {stages}, {.resume = true});
    (void)run("out", kNew, {});
    EXPECT_TRUE(late.run({}, observer).already_finished);
    EXPECT_EQ(all_files(directory_ / "out"), new_);
}

TEST_F(Publishing, OverwritingLeavesNoFileOfTheOldConversion) {
    const fs::path model = directory_ / "model", out = directory_ / "out";
    write_text(model / "tokenizer.model", "of the old source");
    prepare("out", false);
    (void)run("out", kOld, {.max_shard_bytes = 20'000});
    write_text(out / "notes.txt", "the user's own");
    fs::remove(model / "tokenizer.model");
    const Files before = all_files(out);
    ASSERT_TRUE(before.contains("tokenizer.model"));
    // Whatever interrupts it, the same again leaves the new conversion and what the user put there.
    for (int k = 1; k < 1000; ++k) {
        fs::remove_all(out);
        fs::create_directory(out);
        for (const auto& [name, content] : before) write_text(out / name, content);
        bool reached = false;
        {
            const Faults faults(k, Faults::Kind::from_then_on);
            try {
                (void)run("out", kNew, {.overwrite = true});
            } catch (const Error&) {
                // checked elsewhere
            }
            reached = faults.reached();
        }
        if (reached) (void)run("out", kNew, {.overwrite = true});
        ASSERT_EQ(all_files(out), new_in_old_) << "operation " << k;
        if (!reached) break;
    }
}

TEST_F(Publishing, LinksAmongSmallFilesLeadOnlyToFilesOfCheckpoints) {
    const fs::path model = directory_ / "model", out = directory_ / "out";
    write_text(directory_ / "secret", "of the user");
    write_text(directory_ / "tokenizer.json", "{}");
    write_text(model / "inside.txt", "of the model");
    fs::create_symlink(directory_ / "secret", model / "tokenizer_config.json");
    fs::create_symlink(directory_ / "secret", model / "secret");
    fs::create_symlink(directory_ / "tokenizer.json", model / "tokenizer.json");
    fs::create_symlink("inside.txt", model / "link.txt");
    fs::create_directories(model / "additional_chat_templates");
    fs::create_symlink(directory_ / "secret", model / "additional_chat_templates/a.jinja");
    (void)run("out", kNew, {});
    EXPECT_FALSE(fs::exists(out / "tokenizer_config.json"));
    EXPECT_FALSE(fs::exists(out / "secret"));
    EXPECT_FALSE(fs::exists(out / "additional_chat_templates/a.jinja"));
    EXPECT_EQ(read_text(out / "tokenizer.json"), "{}");
    EXPECT_FALSE(fs::is_symlink(out / "tokenizer.json"));
    EXPECT_EQ(read_text(out / "link.txt"), "of the model");
    // As the hub's cache has them: every file is a link into its store.
    const fs::path repository = directory_ / "models--a--b", snapshot = repository / "snapshots/0123";
    fs::create_directories(repository / "blobs");
    fs::create_directories(snapshot);
    for (const char* name : {"config.json", "model.safetensors", "README.md"}) {
        fs::copy_file(model / name, repository / "blobs" / (std::string("hash-of-") + name));
        fs::create_symlink("../../blobs/" + (std::string("hash-of-") + name), snapshot / name);
    }
    StagedPlan stages;
    stages.rope = {"uniform", 4, 0};
    stages.kv_rank = kNew;
    Observer observer;
    (void)convert(Model::open(snapshot), directory_ / "hub", {stages}, {}, observer);
    EXPECT_EQ(read_text(directory_ / "hub/README.source.md"), "of the source");
}

TEST_F(Publishing, HiddenNamesThatAreLinksAreRefused) {
    fs::create_directories(directory_ / "elsewhere");
    write_text(directory_ / "elsewhere/config.json", "of the user");
    for (const char* name : {".mha2mla.incomplete", ".mha2mla.ready", ".mha2mla.replacing", ".mha2mla.replaced"}) {
        SCOPED_TRACE(name);
        prepare("out", true);
        fs::create_symlink(directory_ / "elsewhere", directory_ / "out" / name);
        try {
            (void)run("out", kNew, {.overwrite = true});
        } catch (const Error&) {
            EXPECT_EQ(read_text(directory_ / "out/config.json"), old_.at("config.json"));
        }
        EXPECT_EQ(read_text(directory_ / "elsewhere/config.json"), "of the user");
    }
}

TEST_F(Publishing, LinksAndDirectoriesInTheWayAreRefused) {
    write_text(directory_ / "victim", "of the user");
    prepare("out", true);
    fs::create_symlink(directory_ / "victim", directory_ / "out/mha2mla.journal.jsonl");
    EXPECT_THROW((void)run("out", kNew, {.overwrite = true}), Error);
    EXPECT_EQ(read_text(directory_ / "victim"), "of the user");
    fs::remove(directory_ / "out/mha2mla.journal.jsonl");
    fs::remove(directory_ / "out/README.md");
    fs::create_directory(directory_ / "out/README.md");
    const Files before = all_files(directory_ / "out");
    expect_error(ErrorCode::io, {"README.md", "directory"}, [&] { (void)run("out", kNew, {.overwrite = true}); });
    EXPECT_EQ(all_files(directory_ / "out"), before);
}

TEST_F(Publishing, EverySmallFileOfTheSourceHasANameOfItsOwn) {
    const fs::path model = directory_ / "model";
    write_text(model / "README.source.md", "of the source's source");
    write_text(model / "mha2mla.journal.jsonl", "of another conversion");
    for (int i = 0; i < 40; ++i) write_text(model / ("note" + std::to_string(i) + ".txt"), std::to_string(i));
    (void)run("out", kNew, {});
    const fs::path out = directory_ / "out";
    EXPECT_EQ(read_text(out / "README.source.md"), "of the source's source");
    EXPECT_EQ(read_text(out / "README.source-2.md"), "of the source");
    EXPECT_EQ(read_text(out / "note39.txt"), "39");
    EXPECT_FALSE(fs::exists(out / "mha2mla.journal.jsonl"));
    EXPECT_TRUE(run("out", kNew, {.resume = true}).already_finished);
}

TEST_F(Publishing, NamedChatTemplatesComeInTheirFolder) {
    const fs::path templates = directory_ / "model/additional_chat_templates";
    fs::create_directory(templates);
    write_text(templates / "tool_use.jinja", "{{ tools }}");
    write_text(templates / "notes.txt", "of the user");
    (void)run("out", kNew, {});
    const fs::path out = directory_ / "out";
    EXPECT_EQ(read_text(out / "additional_chat_templates/tool_use.jinja"), "{{ tools }}");
    EXPECT_FALSE(fs::exists(out / "additional_chat_templates/notes.txt"));
    EXPECT_NE(read_text(out / "README.md").find("`additional_chat_templates/notes.txt`: not a chat template"),
              std::string::npos);
    EXPECT_TRUE(run("out", kNew, {.resume = true}).already_finished);

    // The folder is exchanged as a whole.
    fs::rename(templates / "tool_use.jinja", templates / "rag.jinja");
    (void)run("out", kNew, {.overwrite = true});
    EXPECT_EQ(read_text(out / "additional_chat_templates/rag.jinja"), "{{ tools }}");
    EXPECT_FALSE(fs::exists(out / "additional_chat_templates/tool_use.jinja"));
}

}  // namespace
}  // namespace mha2mla::test
