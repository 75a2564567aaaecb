// One byte that says what is read, then the bytes of a JSON Lines file: questions of a multiple-choice task,
// LongBench's predictions or items, the log of a training run.
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <string_view>

#include "evaluate/longbench_lines.hpp"
#include "mha2mla/choices.hpp"
#include "mha2mla/error.hpp"
#include "mha2mla/longbench.hpp"
#include "mha2mla/report.hpp"
#include "support/temporary.hpp"

namespace {

namespace fs = std::filesystem;

template <std::size_t Task>
void read_questions(const fs::path& file) {
    const auto& task = mha2mla::choice_tasks()[Task];
    for (const auto& item : mha2mla::read_choices(file, task)) {
        if (item.gold < 0 || item.gold >= std::ssize(item.choices)) std::abort();
    }
}

void read_predictions(const fs::path& file) {
    const auto predictions = mha2mla::read_longbench_predictions(file);
    const auto scores = mha2mla::score_longbench(predictions);
    for (const double score : scores.scores) {
        if (!(score >= 0 && score <= 1)) std::abort();
    }
}

void read_items(const fs::path& file) {
    for (const char* name : {"trec", "passage_retrieval_en"}) {
        const mha2mla::test::TemporaryDirectory directory;
        const auto& task = mha2mla::longbench_task(name);
        fs::create_symlink(file, mha2mla::longbench_file(directory.path(), task));
        const mha2mla::LongbenchData data(directory.path(), task);
        for (std::size_t i = 0; i < data.size(); ++i) (void)mha2mla::prediction_line(task, data.item(i), "No");
    }
}

void read_log(const fs::path& file) {
    const std::array runs = {mha2mla::read_training_log(file)};
    (void)mha2mla::training_html(runs);
}

constexpr std::array kReaders = {read_questions<0>, read_questions<1>, read_questions<2>, read_questions<3>,
                                 read_questions<4>, read_questions<5>, read_questions<6>, read_predictions,
                                 read_items,        read_log};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    if (size < 1) return 0;
    const mha2mla::test::MemoryFile file({reinterpret_cast<const char*>(data) + 1, size - 1});
    try {
        kReaders.at((data[0] + kReaders.size() - '0' % kReaders.size()) % kReaders.size())(file.path());
    } catch (const mha2mla::Error&) {
    }
    return 0;
}
