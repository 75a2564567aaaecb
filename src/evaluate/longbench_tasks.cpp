#include <algorithm>

#include "longbench_prompts.hpp"
#include "mha2mla/error.hpp"
#include "mha2mla/longbench.hpp"
#include "mha2mla/suggestion.hpp"

namespace mha2mla {
namespace {

using namespace longbench;
using Metric = LongbenchMetric;

constexpr std::string_view kSingle = "Single-Document QA";
constexpr std::string_view kMulti = "Multi-Document QA";
constexpr std::string_view kSummary = "Summarization";
constexpr std::string_view kFewShot = "Few-shot Learning";
constexpr std::string_view kSynthetic = "Synthetic Tasks";
constexpr std::string_view kCode = "Code Completion";

/// From config/dataset2maxlen.json, eval.py and pred.py of LongBench.
constexpr LongbenchTask kLongbenchTasks[] = {
    // name, group, metric, new tokens, chat, first line only, newline ends, prompt
    {"narrativeqa", kSingle, Metric::qa_f1, 128, true, false, false, kNarrativeqaPrompt},
    {"qasper", kSingle, Metric::qa_f1, 128, true, false, false, kQasperPrompt},
    {"multifieldqa_en", kSingle, Metric::qa_f1, 64, true, false, false, kMultiFieldQaPrompt},
    {"hotpotqa", kMulti, Metric::qa_f1, 32, true, false, false, kMultiDocumentPrompt},
    {"2wikimqa", kMulti, Metric::qa_f1, 32, true, false, false, kMultiDocumentPrompt},
    {"musique", kMulti, Metric::qa_f1, 32, true, false, false, kMultiDocumentPrompt},
    {"gov_report", kSummary, Metric::rouge_l, 512, true, false, false, kGovReportPrompt},
    {"qmsum", kSummary, Metric::rouge_l, 512, true, false, false, kQmsumPrompt},
    {"multi_news", kSummary, Metric::rouge_l, 512, true, false, false, kMultiNewsPrompt},
    {"trec", kFewShot, Metric::classification, 64, false, true, false, kTrecPrompt},
    {"triviaqa", kFewShot, Metric::qa_f1, 32, false, true, false, kTriviaqaPrompt},
    {"samsum", kFewShot, Metric::rouge_l, 128, false, true, true, kSamsumPrompt},
    {"passage_count", kSynthetic, Metric::count, 32, true, false, false, kPassageCountPrompt},
    {"passage_retrieval_en", kSynthetic, Metric::retrieval, 32, true, false, false, kPassageRetrievalPrompt},
    {"lcc", kCode, Metric::code_similarity, 64, false, false, false, kLccPrompt},
    {"repobench-p", kCode, Metric::code_similarity, 64, false, false, false, kRepoBenchPrompt},
    {"lsht", kFewShot, Metric::classification, 64, false, true, false, ""},
};

}  // namespace

std::span<const LongbenchTask> longbench_tasks() { return kLongbenchTasks; }

const LongbenchTask& longbench_task(std::string_view name) {
    std::string names;
    std::vector<std::string> candidates;
    for (const auto& task : kLongbenchTasks) {
        if (task.name == name) return task;
        names += (names.empty() ? "" : ", ") + std::string(task.name);
        candidates.emplace_back(task.name);
    }
    throw Error(ErrorCode::usage, "'" + std::string(name) + "' is not one of LongBench's tasks " + names +
                                      did_you_mean(name, candidates));
}

}  // namespace mha2mla
