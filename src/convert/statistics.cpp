#include "mha2mla/statistics.hpp"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <thread>

#include "mha2mla/error.hpp"
#include "mha2mla/fingerprint.hpp"
#include "mha2mla/version.hpp"

namespace mha2mla {
namespace fs = std::filesystem;
namespace {

using OrderedJson = nlohmann::ordered_json;

const RopeStrategy& strategy_of(const StagedPlan& plan) { return find_rope_strategy(plan.rope.strategy); }

std::string selection_setting(const StagedPlan& plan) { return "rope " + plan.rope.strategy; }
/// The setting that needs moments.
std::string moments_setting(const StagedPlan& plan) {
    const FactorizationRow& row = row_of(plan.factorization);
    return row.needs_moments() ? "svd " + std::string(row.name) : "nope-phase fitted";
}

[[noreturn]] void refuse_without_source(const StagedPlan& plan) {
    const std::string who = strategy_of(plan).needs_ranks() ? selection_setting(plan) : moments_setting(plan);
    if (plan.guided()) {
        throw Error(ErrorCode::usage, who + " needs statistics on text", Remedy::give_statistics_or_joint);
    }
    if (strategy_of(plan).goes_by_order()) {
        throw Error(ErrorCode::usage, who + " needs statistics on text", Remedy::give_statistics);
    }
    throw Error(ErrorCode::usage, who + " needs query and key norms", Remedy::give_norms);
}

/// A rank file ranks by norms, and holds nothing else.
void check_rank_file(const StagedPlan& plan) {
    if (strategy_of(plan).goes_by_order()) {
        throw Error(ErrorCode::usage,
                    "rank-file ranks pairs by their norms, which " + selection_setting(plan) + " does not",
                    Remedy::give_order);
    }
    if (plan.guided()) {
        throw Error(ErrorCode::usage,
                    "rank-file holds no moments of layer inputs, which " + moments_setting(plan) + " needs",
                    Remedy::give_moments);
    }
}

void refuse_part(const CalibrationStats& stats, const std::string& name) {
    if (!stats.part || stats.part->shard.count == 1) return;
    throw Error(ErrorCode::usage, name + ": holds shard " + stats.part->shard.text() + " of a run only",
                Remedy::merge_shards);
}

/// Checks that the statistics of a file are those of the model and hold what the plan needs.
void check_given(const CalibrationStats& stats, const StagedPlan& plan, const ModelConfig& config,
                 const std::string& name) {
    refuse_part(stats, name);
    check_stats_fit(stats, config, name);
    const StatisticSet has = gathered_in(stats);
    if (plan.guided() && !has.moments) {
        throw Error(ErrorCode::usage,
                    name + ": has no moments of layer inputs, which " + moments_setting(plan) + " needs",
                    Remedy::calibrate_with_moments);
    }
    if (!has.has({needed_statistics(plan).orders, false}) && stats.inputs == nullptr) {
        throw Error(ErrorCode::usage,
                    name + ": does not rank pairs by " + std::string(strategy_of(plan).order.statistic) + ", as " +
                        selection_setting(plan) + " needs",
                    Remedy::calibrate_with_order);
    }
}

/// Held while statistics are computed, so that other processes wait for them instead of computing them too.
class FileLock {
public:
    FileLock(const fs::path& path, const Observer& observer)
        : descriptor_(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666)) {
        if (descriptor_ < 0) throw Error(ErrorCode::io, path.string() + ": cannot create; is the directory writable?");
        while (::flock(descriptor_, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK) {
            if (observer.cancelled()) {
                ::close(descriptor_);
                throw Error(ErrorCode::interrupted, "interrupted while another process computes " + path.string());
            }
            std::this_thread::sleep_for(std::chrono::milliseconds(200));
        }
    }
    ~FileLock() { ::close(descriptor_); }
    FileLock(const FileLock&) = delete;
    FileLock& operator=(const FileLock&) = delete;
    FileLock(FileLock&&) = delete;
    FileLock& operator=(FileLock&&) = delete;

private:
    int descriptor_;
};

/// The statistics of a text, from the shared file if it holds what is needed.
CalibrationStats shared_or_new(const Model& model, const StagedPlan& plan, const StatisticsSource& source,
                               const SharedStatistics& shared, std::uint64_t max_memory, Observer& observer) {
    StatisticSet gather = needed_statistics(plan);
    gather |= shared.needs;
    const auto calibrated = [&] {
        return calibrate_on_text(model, source.text, source.samples, plan.rope.rope_dim, gather, max_memory, observer);
    };
    if (shared.file.empty()) return calibrated();
    fs::create_directories(shared.file.parent_path());
    const FileLock lock(shared.file.string() + ".lock", observer);
    std::error_code ignored;
    if (fs::exists(shared.file, ignored)) {
        try {
            CalibrationStats stats = load_stats(shared.file);
            const StatisticSet has = gathered_in(stats);
            if (has.has(needed_statistics(plan))) {
                stats.settling.reset();  // of an earlier run
                return stats;
            }
            gather |= has;
        } catch (const Error& error) {
            if (error.code() != ErrorCode::format) throw;
            observer.warn(std::string(error.message()) + "; calibrating again");
        }
    }
    const CalibrationStats stats = calibrated();
    save_stats(shared.file, stats, observer);
    return load_stats(shared.file);
}

/// Computes those of the orders that the statistics do not have.
void add_orders(const StatisticSet& needs, const Model& model, CalibrationStats& stats, Observer& observer) {
    for (const RopeStrategy& strategy : rope_strategies()) {
        const PairOrder& order = strategy.order;
        const bool needed = strategy.goes_by_order() && needs.orders.contains(order.statistic);
        if (needed && !stats.orders.contains(order.statistic)) add_order(order, model, stats, observer);
    }
}

CalibrationStats from_file(const Model& model, const StagedPlan& plan, const fs::path& file, Observer& observer) {
    CalibrationStats stats = load_stats(file);
    check_given(stats, plan, model.config, file.string());
    add_orders(needed_statistics(plan), model, stats, observer);
    stats.settling.reset();  // of an earlier run
    return stats;
}

void warn_of_unsettled(const CalibrationStats& stats, Observer& observer) {
    if (!stats.settling || stats.settling->unsettled_layers == 0) return;
    observer.warn("the 2-norm selection of " + std::to_string(stats.settling->unsettled_layers) + " of " +
                  std::to_string(stats.layers) + " layers had not settled for rope-dim " +
                  std::to_string(stats.settling->rope_dim) + " after " + std::to_string(stats.sequences) +
                  " sequences; the text ended, and more text is better");
}

/// The sequences of a shard. Orders of pairs go by the sample, which the first shard then must have all of.
Shard::Range range_of_shard(const Shard& shard, std::int64_t sequences, std::int64_t seq_len,
                            const StatisticSet& gather) {
    const std::string text =
        "calibration on " + std::to_string(sequences) + " sequences in " + std::to_string(shard.count) + " shards: ";
    if (shard.count > sequences) {
        throw Error(ErrorCode::usage, text + "give at most as many shards as sequences");
    }
    const std::int64_t sampled = kSampleTokens / std::min(seq_len, kSampleSeqLen);
    const std::int64_t in_first = Shard{0, shard.count}.range(sequences).size();
    if (!gather.orders.empty() && in_first < std::min(sampled, sequences)) {
        throw Error(ErrorCode::usage, text + "the first has " + std::to_string(in_first) + " of the first " +
                                          std::to_string(std::min(sampled, sequences)) +
                                          ", by which pairs are ordered; give fewer shards or more sequences");
    }
    return shard.range(sequences);
}

/// What the shards of one run have in common, and others do not.
std::string run_hash(const Model& model, const TextSource& text, std::int64_t samples, std::int64_t seq_len,
                     const StatisticSet& gather) {
    OrderedJson run = {{"version", version()}, {"source", source_fingerprint(model)}, {"text", describe_text(text)}};
    run["samples"] = samples;
    run["seq-len"] = seq_len;
    run["orders"] = gather.orders;
    run["moments"] = gather.moments;
    return text_hash(run.dump());
}

}  // namespace

std::int64_t SampleOptions::length(const ModelConfig& config) const {
    return seq_len.value_or(std::min<std::int64_t>(2048, config.max_position_embeddings));
}

CalibrationStats calibrate_on_text(const Model& model, const TextSource& text, const SampleOptions& samples,
                                   std::int64_t rope_dim, const StatisticSet& gather, std::uint64_t max_memory,
                                   Observer& observer) {
    check_rope_dim(model.config, rope_dim);
    const std::int64_t seq_len = samples.length(model.config);
    if (seq_len > model.config.max_position_embeddings) {
        observer.warn("sequences of " + std::to_string(seq_len) + " tokens are longer than the model's " +
                      std::to_string(model.config.max_position_embeddings) + " positions");
    }
    if (samples.until_settled && samples.shard) {
        throw Error(ErrorCode::usage,
                    "a shard is a part of a number of sequences that is known before, not of as many as settle");
    }
    const std::int64_t wanted =
        samples.until_settled ? kMostSettlingSequences : samples.samples.value_or(SampleOptions::kDefaultSamples);
    auto ids = load_tokens(text, model, wanted * seq_len);
    const auto available = static_cast<std::int64_t>(ids.size()) / seq_len;
    if (available == 0) {
        throw Error(ErrorCode::usage,
                    text.name() + ": " + std::to_string(ids.size()) + " tokens are less than one sequence of " +
                        std::to_string(seq_len),
                    Remedy::longer_text);
    }
    if (available < wanted && !samples.until_settled) {
        observer.warn(text.name() + " has only " + std::to_string(available) + " sequences of " +
                      std::to_string(seq_len) + " tokens, not " + std::to_string(wanted));
    }
    ids.resize(static_cast<std::size_t>(available * seq_len));
    StatisticSet own = gather;
    if (samples.shard) {
        const Shard::Range range = range_of_shard(*samples.shard, available, seq_len, gather);
        if (samples.shard->index > 0) own.orders.clear();
        ids = {ids.begin() + range.first * seq_len, ids.begin() + range.last * seq_len};
    }
    const CalibrationOptions options{.max_memory = max_memory, .spill_directory = {}, .inputs = own.inputs()};
    CalibrationStats stats = samples.until_settled
                                 ? calibrate_until_settled(model, ids, seq_len, rope_dim, observer, options)
                                 : calibrate(model, ids, seq_len, observer, options);
    warn_of_unsettled(stats, observer);
    stats.model = model.checkpoint.directory().string();
    stats.data = text.name();
    if (samples.shard) stats.part = {*samples.shard, run_hash(model, text, wanted, seq_len, gather)};
    add_orders(own, model, stats, observer);
    return stats;
}

bool needs_statistics(const StagedPlan& plan) { return strategy_of(plan).needs_ranks() || plan.guided(); }

StatisticSet needed_statistics(const StagedPlan& plan) {
    StatisticSet needs{{}, plan.guided()};
    if (strategy_of(plan).goes_by_order()) needs.orders.emplace(strategy_of(plan).order.statistic);
    return needs;
}

void check_statistics(const StagedPlan& plan, const StatisticsSource& source, const ModelConfig& config,
                      Observer& observer) {
    const int sources = int(!source.stats.empty()) + int(!source.rank_file.empty()) + int(source.text.given());
    if (sources > 1) {
        throw Error(ErrorCode::usage, "give only one of stats, rank-file, calibration-text and calibration-tokens");
    }
    if (!needs_statistics(plan)) {
        if (sources > 0) {
            observer.warn("the selection " + plan.rope.strategy + " needs no statistics; those given are not used");
        }
        return;
    }
    if (sources == 0) refuse_without_source(plan);
    if (!source.rank_file.empty()) check_rank_file(plan);
    if (!source.stats.empty()) check_given(load_stats(source.stats), plan, config, source.stats.string());
}

OrderedJson describe_text(const TextSource& text) {
    OrderedJson json;
    if (text.tokens.empty()) {
        json["calibration-text"] = file_hash(text.text);
        if (!text.field.empty()) json["calibration-text-field"] = text.field;
        if (!text.tokenizer.empty()) json["calibration-tokenizer"] = file_hash(text.tokenizer);
    } else {
        json["calibration-tokens"] = file_hash(text.tokens);
        json["calibration-token-format"] = kTokenFormats.at(static_cast<std::size_t>(text.format)).name;
    }
    return json;
}

OrderedJson describe_statistics(const StagedPlan& plan, const StatisticsSource& source, const ModelConfig& config) {
    if (!needs_statistics(plan)) return nullptr;
    if (!source.rank_file.empty()) return {{"rank-file", file_hash(source.rank_file)}};
    if (!source.stats.empty()) return {{"stats", file_hash(source.stats)}};
    OrderedJson json = describe_text(source.text);
    json["samples"] = source.samples.until_settled
                          ? OrderedJson("auto")
                          : OrderedJson(source.samples.samples.value_or(SampleOptions::kDefaultSamples));
    json["seq-len"] = source.samples.length(config);
    if (source.samples.shard) json["shard"] = source.samples.shard->text();
    return json;
}

fs::path shared_statistics_file(const fs::path& directory, const Model& model, const StagedPlan& plan,
                                const StatisticsSource& source, const OrderedJson& fingerprint) {
    if (!needs_statistics(plan) || !source.text.given()) return {};
    OrderedJson key = {
        {"version", version()}, {"source", fingerprint.at("source")}, {"data", fingerprint.at("statistics")}};
    if (source.samples.until_settled) key["rope-dim"] = plan.rope.rope_dim;
    const std::string name = fs::weakly_canonical(model.checkpoint.directory()).filename().string();
    return directory / (name + "-" + text_hash(key.dump()).substr(0, 16) + ".safetensors");
}

bool has_statistics(const SharedStatistics& shared) {
    std::error_code ignored;
    try {
        return fs::exists(shared.file, ignored) && gathered_in(load_stats(shared.file)).has(shared.needs);
    } catch (const Error& error) {
        if (error.code() != ErrorCode::format) throw;
        return false;  // damaged: they will be made again
    }
}

Statistics make_statistics(const Model& model, const StagedPlan& plan, const StatisticsSource& source,
                           Observer& observer, std::uint64_t max_memory, const SharedStatistics& shared,
                           const PairRanks* kept) {
    Statistics result;
    if (!needs_statistics(plan)) return result;
    const RopeStrategy& strategy = strategy_of(plan);
    if (strategy.needs_ranks() && kept != nullptr) result.ranks = *kept;
    if (!source.rank_file.empty() && !result.ranks) {
        check_rank_file(plan);
        result.ranks = read_rank_file(source.rank_file);
    }
    const bool has_all = (result.ranks || !strategy.needs_ranks()) && !plan.guided();
    if (has_all) return result;
    if (source.stats.empty() && !source.text.given()) refuse_without_source(plan);
    const CalibrationStats stats = source.stats.empty()
                                       ? shared_or_new(model, plan, source, shared, max_memory, observer)
                                       : from_file(model, plan, source.stats, observer);
    if (!result.ranks && strategy.needs_ranks()) {
        result.ranks = ranks_for(strategy, plan.query_head_keys ? of_query_heads(stats) : stats);
    }
    result.inputs = stats.inputs;
    result.settling = stats.settling;
    if (source.stats.empty()) result.sequences = stats.sequences;
    return result;
}

}  // namespace mha2mla
