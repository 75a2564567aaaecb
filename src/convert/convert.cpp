#include "mha2mla/convert.hpp"
#include "mha2mla/checkpoint_writer.hpp"

#include <malloc.h>

#include <algorithm>
#include <atomic>
#include <utility>

#include "../support/hash.hpp"
#include "convert_layer.hpp"
#include "journal.hpp"
#include "layout.hpp"
#include "mha2mla/error.hpp"
#include "mha2mla/fingerprint.hpp"
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

std::optional<JournalContents> journal_to_resume(const fs::path& destination, const nlohmann::ordered_json& key) {
    auto journal = read_journal(destination);
    if (journal) require_same(destination, journal->fingerprint, key);
    return journal;
}

/// Number of copy threads: one reads while the other waits for the disk.
constexpr std::int64_t kCopiers = 2;

void stop_if_cancelled(const Observer& observer) {
    if (observer.cancelled()) throw Error(ErrorCode::interrupted, "interrupted");
}

/// One conversion, from its layout to its last file.
class Run {
public:
    Run(const Model& source, const fs::path& destination, const ConvertOptions& options, ConvertReport& report,
        const JournalContents* earlier, Journal& journal)
        : source_(source),
          destination_(destination),
          options_(options),
          report_(report),
          earlier_(earlier),
          schedule_(options.aligned() ? Schedule{} : plan_schedule(source.config, options, thread_count())),
          layout_(lay_out_conversion(source, options)),
          writer_(destination, std::exchange(layout_.tensors, {}), {options.max_shard_bytes, true, earlier != nullptr}),
          recorder_(journal, writer_) {
        report_.retained_energy.resize(source.layers.size());
        if (row_of(options.factorization).needs_moments()) report_.balance.resize(source.layers.size());
        report_.pieces = static_cast<std::int64_t>(layout_.layers.size() + layout_.copies.size());
    }

    void write_pieces(Observer& observer) {
        const auto copies = static_cast<std::int64_t>(layout_.copies.size());
        std::vector<Work> works = {{"copy", copies, kCopiers, [&](auto i) { copy_piece(i); }}};
        if (options_.aligned()) {
            align_layers(observer);
        } else {
            works.insert(works.begin(), {"convert", source_.config.num_hidden_layers, schedule_.layers_at_once,
                                         [&](auto i) { layer_piece(i); }});
        }
        run_side_by_side(works, observer);
        recorder_.finish();
    }

    void publish(const nlohmann::ordered_json& fingerprint, const PairRanks* ranks, Observer& observer) {
        report_.output_bytes = writer_.total_bytes();
        report_.pieces_resumed = resumed_;
        add_side_files(writer_, source_, options_, report_, ranks);
        std::vector<CheckpointWriter::FileRecord> files(writer_.file_count());
        const auto finish = [&](std::int64_t i) {
            files[static_cast<std::size_t>(i)] = writer_.finish_file(static_cast<std::size_t>(i));
        };
        run_side_by_side({{"finish", static_cast<std::int64_t>(files.size()), thread_count(), finish}}, observer);
        const auto record = conversion_record(source_, options_, report_, fingerprint, files);
        writer_.add_file("README.md", model_card(record));
        writer_.add_file(std::string(kRecordFile), record.dump(2) + "\n");
        stop_if_cancelled(observer);
        writer_.commit();
    }

    [[nodiscard]] std::int64_t kept() const { return kept_; }

    /// Leaves what is recorded for another run.
    void keep() {
        try {
            recorder_.finish();
        } catch (const Error&) {
            // What could not be recorded will be done again.
        }
        writer_.keep();
    }

private:
    /// Each layer corrects for those before it, so there is an order.
    void align_layers(const Observer& observer) {
        report_.retained_energy.clear();
        report_.balance.clear();
        Aligner& aligner = *options_.aligner;
        for (std::int64_t layer = 0; layer < aligner.layer(); ++layer) {
            const FinishedPiece* piece = take_over(layer_name(layer));
            if (piece == nullptr) {
                throw Error(ErrorCode::io,
                            destination_.string() + ": layer " + std::to_string(layer) +
                                " is no longer what was written, and the layers after it were aligned on it",
                            Remedy::start_over);
            }
            report_.alignment_error.push_back(piece->alignment_error);
        }
        aligner.save(alignment_path(destination_));
        while (aligner.layer() < source_.config.num_hidden_layers) {
            const auto layer = static_cast<std::size_t>(aligner.layer());
            const auto [weights, error] = aligner.next();
            report_.alignment_error.push_back(error);
            write_aligned_layer(writer_, source_, static_cast<std::int64_t>(layer), options_,
                                report_.selection.pairs[layer], weights);
            FinishedPiece piece{layer_name(static_cast<std::int64_t>(layer)), {}, 1, 0, error};
            record(std::move(piece), layout_.layers[layer]);
            stop_if_cancelled(observer);
            // What says that a layer is done must not be on disk before the layer.
            recorder_.settle();
            stop_if_cancelled(observer);
            aligner.save(alignment_path(destination_));
            stop_if_cancelled(observer);
        }
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
        const LayerResult result = convert_layer(writer_, source_, layer, options_, report_.selection.pairs[index]);
        set_result(index, result);
        record({name, {}, result.retained_energy, result.balance}, layout_.layers[index]);
    }

    void set_result(std::size_t layer, const LayerResult& result) {
        report_.retained_energy[layer] = result.retained_energy;
        if (!report_.balance.empty()) report_.balance[layer] = result.balance;
    }

    void copy_piece(std::int64_t i) {
        const TensorView& tensor = *layout_.copies[static_cast<std::size_t>(i)];
        const std::string name = "copy of " + tensor.name;
        if (take_over(name) != nullptr) return;
        copy_tensor(writer_, source_, tensor, options_);
        source_.checkpoint.done_with(tensor);
        record({name, {}}, {tensor.name});
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
        for (const auto& tensor : tensors) piece.tensors.emplace(tensor, writer_.hash_of(tensor));
        recorder_.record(std::move(piece));
        ++kept_;
    }

    const Model& source_;
    const fs::path& destination_;
    const ConvertOptions& options_;
    ConvertReport& report_;
    const JournalContents* earlier_;
    Schedule schedule_;
    OutputLayout layout_;
    CheckpointWriter writer_;
    PieceRecorder recorder_;
    std::atomic<std::int64_t> kept_ = 0, resumed_ = 0;
};

}  // namespace

void check_destination(const Model& source, const fs::path& destination, const ConvertOptions& options) {
    std::error_code ignored;
    if (fs::equivalent(source.checkpoint.directory(), destination, ignored)) {
        throw Error(ErrorCode::usage, destination.string() + ": source and destination are the same directory");
    }
    const bool unfinished = fs::exists(journal_path(destination), ignored);
    if (options.overwrite || !unfinished) return check_output_directory(destination, options.overwrite);
    if (!options.resume) {
        throw Error(ErrorCode::io, destination.string() + ": holds an unfinished conversion",
                    Remedy::resume_or_overwrite);
    }
}

struct ConversionJob::Opened {
    const Model& source;
    fs::path destination;
    ConvertOptions options;
    nlohmann::ordered_json fingerprint;
    std::optional<ConvertReport> finished = std::nullopt;
    std::optional<JournalContents> journal = std::nullopt;

    [[nodiscard]] const JournalContents* earlier() const { return journal ? &*journal : nullptr; }
};

ConversionJob::ConversionJob(const Model& source, fs::path destination, ConvertOptions options,
                             nlohmann::ordered_json fingerprint)
    : opened_(new Opened{source, std::move(destination), std::move(options), std::move(fingerprint)}) {
    Opened& job = *opened_;
    refuse_conversion(source.config);
    if (job.fingerprint.is_null()) job.fingerprint = conversion_fingerprint(source, job.options);
    if (job.options.resume) {
        job.finished = finished_conversion(job.destination, job.fingerprint);
        if (job.finished) return;
    }
    check_destination(source, job.destination, job.options);
    if (job.options.resume) job.journal = journal_to_resume(job.destination, job.fingerprint);
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
    if (!opened_->options.align) throw Error(ErrorCode::usage, "the conversion is not an aligned one");
    const AlignRequest& request = *opened_->options.align;
    if (opened_->journal) {
        const fs::path saved = alignment_path(opened_->destination);
        auto aligner = Aligner::restore(saved, opened_->source, request.seq_len, request.options, observer);
        if (aligner != nullptr) return aligner;
        observer.warn(saved.string() + ": not there or damaged; aligning starts with layer 0");
    }
    return std::make_unique<Aligner>(opened_->source, windows(), request.seq_len, request.options, observer);
}

ConvertReport ConversionJob::run(const ConversionInputs& inputs, Observer& observer) {
    if (opened_->finished) return *opened_->finished;
    ConvertOptions& options = opened_->options;
    options.inputs = inputs.inputs;
    options.aligner = inputs.aligner;
    if (options.align && options.aligner == nullptr) {
        throw Error(ErrorCode::usage, "an aligned conversion needs its aligner");
    }
    if (options.aligner != nullptr) {
        options.rope.rope_dim = options.aligner->chosen().rope_dim;
        options.kv_rank = options.aligner->chosen().kv_rank;
    }
    const Model& source = opened_->source;
    const JournalContents* earlier = opened_->earlier();
    ConvertReport report;
    report.plan = plan_conversion(source.config, {options.rope.rope_dim, options.kv_rank, options.factorization, 16});
    report.kv_rank = options.kv_rank;
    report.selection = options.aligner != nullptr ? options.aligner->selection()
                                                  : select_rope(source.config, options.rope, inputs.ranks);
    Journal journal(opened_->destination, opened_->fingerprint, inputs.ranks, earlier);
    Run run(source, opened_->destination, options, report, earlier, journal);
    ::malloc_trim(0);  // what reading the headers and laying out left behind
    try {
        run.write_pieces(observer);
        run.publish(opened_->fingerprint, inputs.ranks, observer);
        journal.keep(false);
    } catch (const Error& error) {
        const bool interrupted = error.code() == ErrorCode::interrupted;
        if (!options.resume && !(interrupted && run.kept() > 0)) throw;
        run.keep();
        journal.keep(true);
        const std::string pieces = std::to_string(run.kept()) + " of " + std::to_string(report.pieces) +
                                   " pieces are kept in " + opened_->destination.string();
        throw Error(error.code(), interrupted ? "interrupted; " + pieces : std::string(error.what()) + "; " + pieces,
                    Remedy::resume);
    }
    return report;
}

ConvertReport convert(const Model& source, const fs::path& destination, const ConvertOptions& options,
                      const PairRanks* ranks, Observer& observer) {
    ConvertOptions whole = options;
    if (whole.ranks_from.is_null() && ranks != nullptr) {
        whole.ranks_from = {{"ranks", hash_of(std::as_bytes(std::span(ranks->values)))}};
    }
    return ConversionJob(source, destination, whole).run({ranks, options.inputs, options.aligner}, observer);
}

std::uint64_t planned_output_bytes(const Model& source, const ConvertOptions& options) {
    const auto bytes_of = [&](const ConvertOptions& asked) {
        std::uint64_t bytes = 0;
        for (const auto& tensor : lay_out_conversion(source, asked).tensors) {
            bytes += byte_count(tensor.dtype, tensor.shape);
        }
        return bytes;
    };
    if (!options.align) return bytes_of(options);
    std::uint64_t most = 0;
    ConvertOptions chosen = options;
    for (const Split& split : possible_splits(source.config, options.align->options)) {
        chosen.rope.rope_dim = split.rope_dim;
        chosen.kv_rank = split.kv_rank;
        most = std::max(most, bytes_of(chosen));
    }
    return most;
}

std::uint64_t planned_memory(const ModelConfig& config, const ConvertOptions& options) {
    return plan_schedule(config, options, thread_count()).bytes;
}

}  // namespace mha2mla
