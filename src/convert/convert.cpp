#include "mha2mla/convert.hpp"
#include "mha2mla/checkpoint_writer.hpp"

#include <malloc.h>
#include <sys/stat.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>
#include <utility>

#include "../support/file_operations.hpp"
#include "../support/hash.hpp"
#include "convert_layer.hpp"
#include "journal.hpp"
#include "layout.hpp"
#include "mha2mla/error.hpp"
#include "mha2mla/fingerprint.hpp"
#include "mha2mla/mapped_file.hpp"
#include "mha2mla/record.hpp"
#include "mha2mla/threads.hpp"
#include "output_files.hpp"
#include "record.hpp"
#include "schedule.hpp"

namespace mha2mla {
namespace fs = std::filesystem;
namespace {

void require_same(const fs::path& destination, const nlohmann::ordered_json& was, const nlohmann::ordered_json& is) {
    const std::string different = differences(was, is);
    if (different.empty()) return;
    throw Error(ErrorCode::usage,
                destination.string() + ": holds an unfinished conversion that cannot be resumed: " + different,
                Remedy::start_over);
}

std::optional<JournalContents> journal_to_resume(const fs::path& destination, const nlohmann::ordered_json& key,
                                                 bool overwrite) {
    auto journal = read_journal(destination);
    if (journal && overwrite && journal->fingerprint != key) return std::nullopt;  // it is replaced
    if (journal) require_same(destination, journal->fingerprint, key);
    return journal;
}

/// Which config.json the destination has: another one after another conversion.
using Identity = std::array<std::uint64_t, 4>;
Identity identity_of(const fs::path& destination) {
    struct stat status {};
    if (::stat((destination / "config.json").c_str(), &status) != 0) return {};
    return {status.st_dev, status.st_ino, static_cast<std::uint64_t>(status.st_mtim.tv_sec),
            static_cast<std::uint64_t>(status.st_mtim.tv_nsec)};
}

/// Whether the destination holds anything but what an unfinished conversion has.
bool holds_output(const fs::path& destination) {
    std::vector<std::string> names;
    if (const int error = files::list(destination, names)) {
        throw Error(ErrorCode::io, destination.string() + ": cannot list: " + std::strerror(error));
    }
    return !std::ranges::all_of(names, is_unfinished_name);
}

/// Number of copy threads: one reads while the other waits for the disk.
constexpr std::int64_t kCopiers = 2;

void stop_if_cancelled(const Observer& observer) {
    if (observer.cancelled()) throw Error(ErrorCode::interrupted, "interrupted");
}

/// What a run is made of.
struct Settings {
    const Model& source;
    const fs::path& destination;
    const ConversionPlan& plan;
    const RunLimits& limits;
    const Provenance& provenance;
    ConversionInputs inputs;
    OutputForm form;
};

/// Saves what the next layers need, the hidden states of both models: behind every layer where that is quick, else so
/// rarely that it takes little of the time.
class SavingPace {
public:
    [[nodiscard]] bool due() const {
        return took_ < std::chrono::milliseconds(100) || Clock::now() - saved_ > 30 * took_;
    }
    void save(const Aligner& aligner, const fs::path& destination) {
        const auto begin = Clock::now();
        aligner.save(alignment_path(destination));
        saved_ = Clock::now();
        took_ = saved_ - begin;
    }

private:
    using Clock = std::chrono::steady_clock;
    Clock::time_point saved_;
    Clock::duration took_{};
};

/// One conversion, from its layout to its last file.
class Run {
public:
    Run(const Settings& settings, ConvertReport& report, const JournalContents* earlier, Journal& journal)
        : settings_(settings),
          source_(settings.source),
          plan_(settings.plan),
          report_(report),
          earlier_(earlier),
          schedule_(plan_.aligned() != nullptr
                        ? Schedule{}
                        : plan_schedule(source_.config, plan_, settings.limits.max_memory, thread_count())),
          layout_(lay_out_conversion(source_, settings.form)),
          writer_(settings.destination, std::exchange(layout_.tensors, {}),
                  {settings.limits.max_shard_bytes, true, earlier != nullptr}),
          recorder_(journal, writer_) {
        if (plan_.staged() != nullptr) {
            report_.retained_energy.resize(source_.layers.size());
            if (row_of(plan_.factorization()).needs_moments()) report_.balance.resize(source_.layers.size());
        }
        report_.pieces = static_cast<std::int64_t>(layout_.layers.size() + layout_.copies.size());
    }

    void write_pieces(Observer& observer) {
        const auto copies = static_cast<std::int64_t>(layout_.copies.size());
        std::vector<Work> works = {{"copy", copies, kCopiers, [&](auto i) { copy_piece(i); }}};
        if (plan_.aligned() != nullptr) {
            align_layers(observer);
        } else {
            works.insert(works.begin(), {"convert", source_.config.num_hidden_layers, schedule_.layers_at_once,
                                         [&](auto i) { layer_piece(i); }});
        }
        run_side_by_side(works, observer);
        recorder_.finish();
    }

    void publish(const nlohmann::ordered_json& fingerprint, Observer& observer) {
        report_.output_bytes = writer_.total_bytes();
        report_.pieces_resumed = resumed_;
        add_side_files(writer_, source_, plan_, settings_.form, report_, settings_.inputs.ranks);
        std::vector<CheckpointWriter::FileRecord> files(writer_.file_count());
        const auto finish = [&](std::int64_t i) {
            files[static_cast<std::size_t>(i)] = writer_.finish_file(static_cast<std::size_t>(i));
        };
        run_side_by_side({{"finish", static_cast<std::int64_t>(files.size()), thread_count(), finish}}, observer);
        const auto record = conversion_record(source_, plan_, settings_.provenance, report_, fingerprint, files);
        writer_.add_file("README.md", model_card(record));
        writer_.add_file(std::string(kRecordFile), record.dump(2) + "\n");
        stop_if_cancelled(observer);
        writer_.commit();
    }

    [[nodiscard]] bool published() const { return writer_.committed(); }
    [[nodiscard]] std::int64_t kept() const { return kept_; }

    /// Leaves what is recorded for another run.
    void keep() {
        try {
            recorder_.finish();
        } catch (...) {
            // What could not be recorded will be done again.
        }
        writer_.keep();
    }

private:
    /// Each layer corrects for those before it, so there is an order.
    void align_layers(const Observer& observer) {
        Aligner& aligner = *settings_.inputs.aligner;
        for (std::int64_t layer = 0; layer < aligner.layer(); ++layer) {
            const FinishedPiece* piece = take_over(layer_name(layer));
            if (piece == nullptr) {
                throw Error(ErrorCode::io,
                            settings_.destination.string() + ": layer " + std::to_string(layer) +
                                " is no longer what was written, and the layers after it were aligned on it",
                            Remedy::start_over);
            }
            report_.alignment_error.push_back(piece->alignment_error);
        }
        SavingPace pace;
        pace.save(aligner, settings_.destination);
        while (aligner.layer() < source_.config.num_hidden_layers) {
            const auto layer = static_cast<std::size_t>(aligner.layer());
            const auto [weights, error] = aligner.next();
            report_.alignment_error.push_back(error);
            write_aligned_layer(writer_, source_, static_cast<std::int64_t>(layer), settings_.form, weights);
            FinishedPiece piece{layer_name(static_cast<std::int64_t>(layer)), {}, 1, 0, error};
            record(std::move(piece), layout_.layers[layer]);
            if (pace.due() || observer.cancelled()) {
                // What says that a layer is done must not be on disk before the layer.
                recorder_.settle();
                pace.save(aligner, settings_.destination);
            }
            stop_if_cancelled(observer);
        }
        report_.frequencies = aligner.frequencies();
    }

    static std::string layer_name(std::int64_t layer) { return "layer " + std::to_string(layer); }

    void layer_piece(std::int64_t layer) {
        const auto index = static_cast<std::size_t>(layer);
        const std::string name = layer_name(layer);
        if (const FinishedPiece* piece = take_over(name)) {
            set_result(index, {piece->retained_energy, piece->balance});
            return;
        }
        set_team_size(schedule_.threads_per_layer);
        read_ahead(layer + schedule_.layers_at_once);
        const LayerResult result = convert_layer(writer_, source_, layer, settings_.form, *plan_.staged(),
                                                 settings_.inputs.inputs, report_.selection.pairs[index]);
        set_result(index, result);
        record({name, {}, result.retained_energy, result.balance}, layout_.layers[index]);
    }

    void set_result(std::size_t layer, const LayerResult& result) {
        report_.retained_energy[layer] = result.retained_energy;
        if (!report_.balance.empty()) report_.balance[layer] = result.balance;
    }

    void copy_piece(std::int64_t i) {
        const CopiedTensor& copy = layout_.copies[static_cast<std::size_t>(i)];
        const std::string name = "copy of " + copy.name;
        if (take_over(name) != nullptr) return;
        copy_tensor(writer_, source_, copy, settings_.form);
        source_.checkpoint.done_with(*copy.tensor);
        record({name, {}}, {copy.name});
    }

    void read_ahead(std::int64_t layer) const {
        if (layer >= source_.config.num_hidden_layers) return;
        const AttentionView& view = source_.layer(layer).original_attention();
        for (const auto* linear : {&view.q, &view.k, &view.v}) source_.checkpoint.will_need(*linear->weight);
    }

    /// The record of a piece that an earlier run finished, if its tensors are what it recorded.
    const FinishedPiece* take_over(const std::string& name) {
        if (earlier_ == nullptr) return nullptr;
        const auto it = earlier_->pieces.find(name);
        if (it == earlier_->pieces.end() || !writer_.take_over(it->second.tensors)) return nullptr;
        ++kept_, ++resumed_;
        return &it->second;
    }

    void record(FinishedPiece piece, const std::vector<std::string>& tensors) {
        check_mapped_files();
        for (const auto& tensor : tensors) piece.tensors.emplace(tensor, writer_.hash_of(tensor));
        recorder_.record(std::move(piece));
        ++kept_;
    }

    const Settings& settings_;
    const Model& source_;
    const ConversionPlan& plan_;
    ConvertReport& report_;
    const JournalContents* earlier_;
    Schedule schedule_;
    OutputLayout layout_;
    CheckpointWriter writer_;
    PieceRecorder recorder_;
    std::atomic<std::int64_t> kept_ = 0, resumed_ = 0;
};

}  // namespace

namespace {

void look_at_destination(const Model& source, const fs::path& destination, const RunLimits& limits) {
    std::error_code ignored;
    if (fs::equivalent(source.checkpoint.directory(), destination, ignored)) {
        throw Error(ErrorCode::usage, destination.string() + ": source and destination are the same directory");
    }
    if (!fs::exists(destination, ignored)) return;
    if (!fs::is_directory(destination, ignored)) check_output_directory(destination, limits.overwrite);  // throws
    check_output_names(source.checkpoint, destination);
    if (limits.overwrite) return;
    if (files::exists(destination / kRunFile)) {
        throw Error(ErrorCode::io, destination.string() + ": holds an unfinished training run", Remedy::overwrite);
    }
    // A journal that cannot be read says nothing about the files beside it.
    const bool only_unfinished = !holds_output(destination);
    const bool unfinished =
        is_unsettled(destination) || read_journal(destination) ||
        (only_unfinished && fs::exists(journal_path(destination), ignored) && !fs::is_empty(journal_path(destination)));
    if (unfinished && !limits.resume) {
        throw Error(ErrorCode::io, destination.string() + ": holds an unfinished conversion",
                    Remedy::resume_or_overwrite);
    }
    if (!unfinished && !only_unfinished) check_output_directory(destination, false);  // throws
}

}  // namespace

void check_destination(const Model& source, const fs::path& destination, const RunLimits& limits) {
    with_errors([&] { look_at_destination(source, destination, limits); });
}

ModelConfig StagedPlan::selected_heads(const ModelConfig& config) const {
    ModelConfig selected = config;
    if (query_head_keys) selected.num_key_value_heads = config.num_attention_heads;
    return selected;
}

std::vector<Split> ConversionPlan::splits(const ModelConfig& config) const {
    if (aligned() != nullptr) return possible_splits(config, aligned()->options);
    return {{staged()->rope.rope_dim, staged()->kv_rank}};
}

PlanOptions ConversionPlan::costed(const Split& split) const {
    return {split.rope_dim,
            split.kv_rank,
            factorization(),
            16,
            &layout(),
            padded(),
            staged() != nullptr && staged()->query_head_keys};
}

struct ConversionJob::Opened {
    const Model& source;
    fs::path destination;
    ConversionPlan plan;
    RunLimits limits;
    Provenance provenance;
    nlohmann::ordered_json fingerprint;
    std::optional<ConvertReport> finished = std::nullopt;
    std::optional<JournalContents> journal = std::nullopt;
    Identity replaces = {};

    void look(bool locked);
    [[nodiscard]] ConvertReport run(const ConversionInputs& inputs, Observer& observer);
    [[nodiscard]] const JournalContents* earlier() const { return journal ? &*journal : nullptr; }
};

ConversionJob::ConversionJob(const Model& source, fs::path destination, ConversionPlan plan, RunLimits limits,
                             Provenance provenance, nlohmann::ordered_json fingerprint)
    : opened_(new Opened{source, std::move(destination), std::move(plan), limits, std::move(provenance),
                         std::move(fingerprint)}) {
    Opened& job = *opened_;
    with_errors([&] {
        refuse_conversion(source.config);
        if (job.plan.aligned() != nullptr) refuse_alignment(source.config, job.plan.aligned()->options);
        (void)output_form(source, job.plan, job.plan.splits(source.config).front());  // or no layout for it
        if (job.fingerprint.is_null()) {
            job.fingerprint = conversion_fingerprint(source, job.plan, job.limits, job.provenance);
        }
        if (job.limits.resume || job.limits.overwrite) settle(job.destination);
        job.replaces = identity_of(job.destination);
        job.look(false);
    });
}

/// Finds what the destination holds. Again under its lock: another process may have changed it.
void ConversionJob::Opened::look(bool locked) {
    if (limits.resume) {
        finished = (locked ? whole_conversion : finished_conversion)(destination, fingerprint);
        if (finished) return;
    }
    if (identity_of(destination) != replaces) {
        throw Error(ErrorCode::io, destination.string() +
                                       ": another process has converted into this directory; choose "
                                       "another place, or run the same again to replace that");
    }
    look_at_destination(source, destination, limits);
    if (limits.resume) journal = journal_to_resume(destination, fingerprint, limits.overwrite);
}

ConversionJob::~ConversionJob() = default;

ConversionJob::State ConversionJob::state() const {
    if (opened_->finished) return State::finished;
    return opened_->journal ? State::unfinished : State::fresh;
}

const PairRanks* ConversionJob::ranks() const {
    const JournalContents* journal = opened_->earlier();
    return journal != nullptr && journal->ranks ? &*journal->ranks : nullptr;
}

std::unique_ptr<Aligner> ConversionJob::make_aligner(const std::function<std::vector<TokenId>()>& windows,
                                                     Observer& observer) const {
    const AlignRequest* asked = opened_->plan.aligned();
    if (asked == nullptr) throw Error(ErrorCode::usage, "the conversion is not an aligned one");
    const AlignRequest& request = *asked;
    if (opened_->journal) {
        const fs::path saved = alignment_path(opened_->destination);
        auto aligner = Aligner::restore(saved, opened_->source, request.seq_len, request.options, observer);
        if (aligner != nullptr) return aligner;
        observer.warn(saved.string() + ": not there or damaged; aligning starts with layer 0");
    }
    return std::make_unique<Aligner>(opened_->source, windows(), request.seq_len, request.options, observer);
}

ConvertReport ConversionJob::run(const ConversionInputs& inputs, Observer& observer) {
    return with_errors([&] { return opened_->run(inputs, observer); });
}

ConvertReport ConversionJob::Opened::run(const ConversionInputs& inputs, Observer& observer) {
    if (finished) return *finished;
    if (plan.aligned() != nullptr && inputs.aligner == nullptr) {
        throw Error(ErrorCode::usage, "an aligned conversion needs its aligner");
    }
    const bool aligned = plan.aligned() != nullptr;
    const Split split = aligned ? inputs.aligner->chosen() : plan.splits(source.config).front();
    ConvertReport report;
    report.plan = plan_conversion(source.config, plan.costed(split));
    report.kv_rank = split.kv_rank;
    report.selection =
        aligned ? inputs.aligner->selection()
                : select_rope(plan.staged()->selected_heads(source.config), plan.staged()->rope, inputs.ranks);
    const DestinationLock lock(destination);
    look(true);
    if (finished) return *finished;
    Journal written(lock, fingerprint, inputs.ranks, earlier());
    const Settings settings{source, destination, plan, limits, provenance, inputs, output_form(source, plan, split)};
    Run run(settings, report, earlier(), written);
    ::malloc_trim(0);  // what reading the headers and laying out left behind
    try {
        run.write_pieces(observer);
        run.publish(fingerprint, observer);
    } catch (...) {
        const Error error = as_error(std::current_exception());
        const bool interrupted = error.code() == ErrorCode::interrupted;
        if (run.published() || (!limits.resume && !(interrupted && run.kept() > 0))) throw error;
        run.keep();
        written.keep(true);
        const std::string pieces = std::to_string(run.kept()) + " of " + std::to_string(report.pieces) +
                                   " pieces are kept in " + destination.string();
        throw Error(error.code(), (interrupted ? "interrupted" : std::string(error.message())) + "; " + pieces,
                    error.remedy() == Remedy::none ? Remedy::resume : error.remedy());
    }
    written.remove();
    return report;
}

ConvertReport convert(const Model& source, const fs::path& destination, const ConversionPlan& plan,
                      const ConversionInputs& inputs, Observer& observer, const RunLimits& limits,
                      const Provenance& provenance) {
    Provenance whole = provenance;
    if (whole.ranks_from.is_null() && inputs.ranks != nullptr) {
        whole.ranks_from = {{"ranks", hash_of(std::as_bytes(std::span(inputs.ranks->values)))}};
    }
    return ConversionJob(source, destination, plan, limits, std::move(whole)).run(inputs, observer);
}

std::uint64_t planned_output_bytes(const Model& source, const ConversionPlan& plan) {
    std::uint64_t most = 0;
    for (const Split& split : plan.splits(source.config)) {
        std::uint64_t bytes = 0;
        for (const auto& tensor : lay_out_conversion(source, output_form(source, plan, split)).tensors) {
            bytes += byte_count(tensor.dtype, tensor.shape);
        }
        most = std::max(most, bytes);
    }
    return most;
}

std::uint64_t planned_memory(const ModelConfig& config, const ConversionPlan& plan, std::uint64_t max_memory) {
    return plan_schedule(config, plan, max_memory, thread_count()).bytes;
}

}  // namespace mha2mla
