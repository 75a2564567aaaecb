// Random sequences of conversions into one destination, each in a process of its own that may be killed, meet failing
// file operations or be interrupted. Whatever came before, the destination holds the old output or the new one, and the
// user's own files; and a conversion that succeeds leaves its output and nothing else.
//
// MHA2MLA_COMMANDS and MHA2MLA_SEED give other lengths and sequences (tools/soak.sh).
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <map>
#include <new>
#include <random>

#include "mha2mla/convert.hpp"
#include "mha2mla/threads.hpp"
#include "support/file_operations.hpp"
#include "support/temporary.hpp"
#include "support/tiny_model.hpp"

namespace mha2mla::test {
namespace {

namespace fs = std::filesystem;
using Files = std::map<std::string, std::string>;

enum class Trouble : std::uint8_t { none, once, from_then_on, out_of_memory, kill, cancel };
constexpr const char* kTroubles[] = {"none", "once", "from then on", "out of memory", "kill", "cancel"};
enum class Outcome : std::uint8_t { done, failed, killed };

struct Command {
    int source = 0, kv_rank = 4, shards = 0;
    bool overwrite = false, resume = false;
    Trouble trouble = Trouble::none;
    int at = 0;  // the operation, or the question whether to stop, at which the trouble begins

    [[nodiscard]] int output() const { return source * 100 + kv_rank * 10 + shards; }
    [[nodiscard]] std::string text() const {
        return "output " + std::to_string(output()) + (overwrite ? " overwrite" : "") + (resume ? " resume" : "") +
               ", " + kTroubles[static_cast<int>(trouble)] + " at " + std::to_string(at);
    }
};

// The state of the process that runs one command.
Trouble trouble = Trouble::none;
int begins_at = 0;
std::atomic<int> operations = 0;

int ask(files::Operation operation) {
    const bool of_memory = operation == files::Operation::open || operation == files::Operation::flush;
    if (trouble == Trouble::out_of_memory && !of_memory) return 0;
    const int now = ++operations;
    if (now < begins_at || (now > begins_at && trouble != Trouble::from_then_on)) return 0;
    if (trouble == Trouble::kill) (void)::raise(SIGKILL);
    if (trouble == Trouble::out_of_memory) throw std::bad_alloc();
    return EIO;
}

class CancelAt final : public Observer {
public:
    explicit CancelAt(int n) : n_(n) {}
    [[nodiscard]] bool cancelled() const override { return n_ > 0 && ++asked_ >= n_; }

private:
    int n_;
    mutable std::atomic<int> asked_ = 0;
};

class Sequence : public testing::Test {
protected:
    Sequence() {
        for (int source = 0; source < 2; ++source) {
            const fs::path model = directory_ / ("model" + std::to_string(source));
            write_tiny_model(model, {.layers = 2, .seed = static_cast<std::uint32_t>(source + 1)});
            write_text(model / ("only" + std::to_string(source) + ".txt"), "of this source");
            write_text(model / "both.txt", std::to_string(source));
        }
    }

    void convert_in_this_process(const fs::path& out, const Command& command) const {
        const ThreadScope threads(1);
        const Model model = Model::open(directory_ / ("model" + std::to_string(command.source)));
        StagedPlan stages;
        stages.rope = {"uniform", 4, 0};
        stages.kv_rank = command.kv_rank;
        constexpr std::uint64_t kShards[] = {1'000'000, 20'000};
        CancelAt observer(command.trouble == Trouble::cancel ? command.at : 0);
        (void)convert(
            model, out, {stages}, {}, observer,
            {.max_shard_bytes = kShards[command.shards], .overwrite = command.overwrite, .resume = command.resume});
    }

    Outcome run(const Command& command) const {
        const pid_t child = ::fork();
        if (child == 0) {
            trouble = command.trouble;
            begins_at = command.at;
            if (trouble != Trouble::none && trouble != Trouble::cancel) files::fault = ask;
            int code = 0;
            try {
                convert_in_this_process(directory_ / "out", command);
            } catch (const Error&) {
                code = 1;
            } catch (...) {
                code = 2;
            }
            ::_exit(code);
        }
        int status = 0;
        if (::waitpid(child, &status, 0) != child) throw std::runtime_error("no child");
        if (WIFSIGNALED(status)) {
            EXPECT_EQ(WTERMSIG(status), SIGKILL) << "ended by a signal";
            return Outcome::killed;
        }
        EXPECT_LT(WEXITSTATUS(status), 2) << "an exception that is no Error";
        return WEXITSTATUS(status) == 0 ? Outcome::done : Outcome::failed;
    }

    /// What the output is when nothing goes wrong.
    const Files& expected(const Command& command) {
        Files& files = expected_[command.output()];
        if (files.empty()) {
            const fs::path out = directory_ / "expected";
            Command calm = command;
            calm.trouble = Trouble::none;
            fs::remove_all(out);
            convert_in_this_process(out, calm);
            files = all_files(out);
        }
        return files;
    }

    static Files all_files(const fs::path& directory) {
        Files files;
        if (!fs::exists(directory)) return files;
        for (const auto& entry : fs::directory_iterator(directory)) {
            files[entry.path().filename().string()] = entry.is_directory() ? "" : read_text(entry.path());
        }
        return files;
    }
    /// Without the user's own and without what an unfinished conversion has.
    static Files visible(Files files) {
        std::erase_if(files, [](const auto& file) {
            return file.first.starts_with(".mha2mla.") || file.first == "mha2mla.journal.jsonl" ||
                   file.first == "notes.txt";
        });
        return files;
    }

    TemporaryDirectory directory_{directory_in_memory()};
    std::map<int, Files> expected_;
};

int number_from(const char* variable, int otherwise) {
    const char* text = std::getenv(variable);
    return text == nullptr ? otherwise : std::atoi(text);
}

TEST_F(Sequence, TheDestinationIsAlwaysTheOldOutputOrTheNewOne) {
#if defined(__SANITIZE_THREAD__)
    GTEST_SKIP() << "its runtime does not let a process start threads after fork()";
#endif
    const int commands = number_from("MHA2MLA_COMMANDS", 2000);
    const int seed = number_from("MHA2MLA_SEED", 1);
    std::mt19937 random(static_cast<std::uint32_t>(seed));
    const auto below = [&](int n) { return static_cast<int>(random() % static_cast<unsigned>(n)); };
    const fs::path out = directory_ / "out";
    Files whole;                 // what the destination holds, but for the user's own
    std::vector<Files> or_else;  // what it may hold too, since a process was killed while it exchanged files
    bool notes = false;
    int done = 0, failed = 0, killed = 0;
    std::string last;
    for (int i = 0; i < commands; ++i) {
        if (below(40) == 0) {  // the user begins anew
            fs::remove_all(out);
            whole.clear(), or_else.clear();
            notes = false;
        }
        if (!notes && !whole.empty() && below(4) == 0) {
            write_text(out / "notes.txt", "the user's own");
            notes = true;
        }
        Command command;
        command.source = below(2), command.kv_rank = below(2) == 0 ? 4 : 8, command.shards = below(2);
        command.overwrite = below(2) == 0, command.resume = below(2) == 0;
        command.trouble = static_cast<Trouble>(below(6));
        // Publishing is where it matters, and comes last.
        command.at = 1 + below(command.trouble == Trouble::cancel ? 60 : 90);
        const Files& own = expected(command);
        last += "\n" + std::to_string(i) + ": " + command.text();
        if (last.size() > 2000) last.erase(0, last.find('\n', last.size() - 1500));
        SCOPED_TRACE("MHA2MLA_SEED=" + std::to_string(seed) + last);

        const Outcome outcome = run(command);

        const Files now = all_files(out);
        if (notes) {
            const auto it = now.find("notes.txt");
            ASSERT_TRUE(it != now.end() && it->second == "the user's own");
        }
        if (outcome == Outcome::done) {
            ++done;
            Files right = own;
            if (notes) right["notes.txt"] = "the user's own";
            // Resuming leaves a complete output as it is, and what --overwrite began beside it can still go on.
            const bool was_complete = command.resume && now.contains("mha2mla.journal.jsonl");
            ASSERT_EQ(was_complete ? visible(now) : now, was_complete ? own : right) << "after success";
            whole = own;
            or_else.clear();
            continue;
        }
        (outcome == Outcome::failed ? failed : killed) += 1;
        const Files seen = visible(now);
        const bool interrupted_exchange =
            now.contains(".mha2mla.ready") || now.contains(".mha2mla.replacing") || now.contains(".mha2mla.replaced");
        or_else.push_back(own);
        if (interrupted_exchange) continue;  // the next one goes on with it
        const bool known = seen == whole || std::find(or_else.begin(), or_else.end(), seen) != or_else.end();
        ASSERT_TRUE(known) << "neither the old output nor a new one";
        whole = seen;
        or_else.clear();
    }
    // And it can always be mended.
    Command calm;
    calm.overwrite = calm.resume = true;
    const Files& own = expected(calm);
    EXPECT_EQ(run(calm), Outcome::done);
    EXPECT_EQ(visible(all_files(out)), own);
    if (commands < 500) return;
    EXPECT_GT(done, commands / 10);
    EXPECT_GT(failed, commands / 10);
    EXPECT_GT(killed, commands / 30);
}

}  // namespace
}  // namespace mha2mla::test
