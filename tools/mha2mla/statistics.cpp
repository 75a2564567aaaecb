#include "statistics.hpp"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <thread>

#include "mha2mla/error.hpp"
#include "mha2mla/fingerprint.hpp"
#include "mha2mla/version.hpp"

namespace mha2mla::tool {
namespace fs = std::filesystem;
namespace {

using Json = nlohmann::ordered_json;

/// What it is that needs moments.
std::string moments_for(const ConvertFlags& flags) {
    const FactorizationRow& row = row_of(flags.request.joint_or_given());
    return row.needs_moments() ? "--svd " + std::string(row.name) : "--nope-phase fitted";
}

bool needs_ranks(const ConvertFlags& flags) { return find_rope_strategy(flags.request.selection()).ranks != nullptr; }

bool needs_statistics(const ConvertFlags& flags) {
    return !flags.aligned() && (needs_ranks(flags) || needs_of(flags).moments);
}

/// A rank file ranks by norms, and holds nothing else.
void check_rank_file(const ConvertFlags& flags) {
    if (flags.rank_file.empty()) return;
    const Gathered needs = needs_of(flags);
    const std::string instead = "; give --calibration-text FILE, or --stats FILE from calibrate ";
    if (needs.attention_order) {
        throw Error(ErrorCode::usage, "--rank-file ranks pairs by their norms, which --rope " +
                                          flags.request.selection() + " does not" + instead + "--attention-order");
    }
    if (needs.moments) {
        throw Error(ErrorCode::usage, "--rank-file holds no moments of layer inputs, which " + moments_for(flags) +
                                          " needs" + instead + "--moments");
    }
}

/// Held while statistics are computed, so that other processes wait for them instead of computing them too.
class FileLock {
public:
    FileLock(const fs::path& path, Context& context)
        : descriptor_(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666)) {
        if (descriptor_ < 0) throw Error(ErrorCode::io, path.string() + ": cannot create; is the directory writable?");
        while (::flock(descriptor_, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK) {
            if (context.observer.cancelled()) {
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

/// Statistics that a batch shares hold what any of its conversions needs, so that the text is read once.
CalibrationStats shared_or_new(const Conversion& conversion, const ConvertFlags& flags, const fs::path& directory,
                               Context& context) {
    Gathered gather = conversion.gather;
    const auto calibrated = [&] {
        return run_calibration(conversion.model, flags.calibration, flags.samples,
                               conversion.plan.staged()->rope.rope_dim, gather, context);
    };
    const fs::path file = statistics_file(conversion, flags, directory);
    if (file.empty()) return calibrated();
    fs::create_directories(directory);
    const FileLock lock(file.string() + ".lock", context);
    std::error_code ignored;
    if (fs::exists(file, ignored)) {
        CalibrationStats stats = load_stats(file);
        const Gathered has = gathered_in(stats);
        if (has.has(needs_of(flags))) return stats;
        gather |= has;
    }
    save_stats(file, calibrated());
    return load_stats(file);
}

CalibrationStats given(const Conversion& conversion, const ConvertFlags& flags, Context& context) {
    CalibrationStats stats = load_stats(flags.stats);
    const std::string name = flags.stats.string();
    check_stats_fit(stats, conversion.model.config, name);
    const Gathered needs = needs_of(flags);
    if (needs.moments && !gathered_in(stats).moments) {
        throw Error(ErrorCode::usage, name + ": has no moments of layer inputs, which " + moments_for(flags) +
                                          " needs; calibrate "
                                          "again with --moments");
    }
    if (needs.attention_order && stats.attention_ranks.empty()) {
        if (stats.inputs == nullptr) {
            throw Error(ErrorCode::usage, name + ": does not rank pairs by attention, as --rope " +
                                              flags.request.selection() +
                                              " needs; calibrate again with --attention-order");
        }
        add_attention_ranks(conversion.model, stats, context.observer);
    }
    return stats;
}

}  // namespace

Gathered needs_of(const ConvertFlags& flags) {
    return {find_rope_strategy(flags.request.selection()).needs.has(Statistic::attention_order),
            row_of(flags.request.joint_or_given()).needs_moments() || flags.request.nope_phase == NopePhase::fitted};
}

void check_statistics_flags(const ConvertFlags& flags, Context& context) {
    const int sources = int(!flags.stats.empty()) + int(!flags.rank_file.empty()) + int(flags.calibration.given());
    if (needs_statistics(flags) && sources == 0) {
        const Gathered needs = needs_of(flags);
        const std::string who = needs_ranks(flags) ? "--rope " + flags.request.selection() : moments_for(flags);
        const bool norms = !needs.attention_order && !needs.moments;
        throw Error(ErrorCode::usage, who + " needs " + (norms ? "query and key norms" : "statistics on text") +
                                          ": give --calibration-text FILE, --calibration-tokens FILE" +
                                          (norms ? ", " : " or ") + "--stats FILE (from calibrate)" +
                                          (norms ? " or --rank-file FILE" : "") + "; or choose --rope uniform" +
                                          (needs.moments ? " and --svd joint, which need" : ", which needs") + " none");
    }
    if (sources > 1) {
        throw Error(ErrorCode::usage,
                    "give only one of --stats, --rank-file, --calibration-text and --calibration-tokens");
    }
    if (!needs_statistics(flags) && sources > 0) {
        context.observer.warn("--rope " + flags.request.selection() + " needs no statistics; those given are not used");
    }
    check_rank_file(flags);
}

Json describe_text(const TokenOptions& data) {
    Json json;
    if (data.tokens.empty()) {
        json["calibration-text"] = file_hash(data.text);
        if (!data.tokenizer.empty()) json["calibration-tokenizer"] = file_hash(data.tokenizer);
    } else {
        json["calibration-tokens"] = file_hash(data.tokens);
        json["calibration-token-format"] = kTokenFormats.at(static_cast<std::size_t>(data.format)).name;
    }
    return json;
}

Json describe_statistics(const ConvertFlags& flags, const ModelConfig& config) {
    if (!needs_statistics(flags)) return nullptr;
    if (!flags.rank_file.empty()) return {{"rank-file", file_hash(flags.rank_file)}};
    if (!flags.stats.empty()) return {{"stats", file_hash(flags.stats)}};
    Json json = describe_text(flags.calibration);
    json["samples"] =
        flags.samples.until_settled ? Json("auto") : Json(flags.samples.samples.value_or(SampleFlags::kDefaultSamples));
    json["seq-len"] = flags.samples.seq_len.value_or(std::min<std::int64_t>(2048, config.max_position_embeddings));
    return json;
}

Statistics load_statistics(const Conversion& conversion, const ConvertFlags& flags, const fs::path& directory,
                           const PairRanks* kept, Context& context) {
    Statistics result;
    if (!needs_statistics(flags)) return result;
    const RopeStrategy& strategy = find_rope_strategy(flags.request.selection());
    if (strategy.ranks != nullptr && kept != nullptr) result.ranks = *kept;
    if (!flags.rank_file.empty() && !result.ranks) result.ranks = read_rank_file(flags.rank_file);
    const bool has_all = (result.ranks || strategy.ranks == nullptr) && !needs_of(flags).moments;
    if (has_all) return result;
    const CalibrationStats stats =
        flags.stats.empty() ? shared_or_new(conversion, flags, directory, context) : given(conversion, flags, context);
    if (!result.ranks && strategy.ranks != nullptr) result.ranks = strategy.ranks(stats);
    result.inputs = stats.inputs;
    return result;
}

fs::path statistics_file(const Conversion& conversion, const ConvertFlags& flags, const fs::path& directory) {
    const bool calibrates = needs_statistics(flags) && flags.calibration.given();
    if (directory.empty() || !calibrates) return {};
    Json key = {{"version", version()},
                {"source", conversion.fingerprint.at("source")},
                {"data", conversion.provenance.ranks_from}};
    if (flags.samples.until_settled) key["rope-dim"] = conversion.plan.staged()->rope.rope_dim;
    const std::string name = fs::weakly_canonical(flags.source).filename().string();
    return directory / (name + "-" + text_hash(key.dump()).substr(0, 16) + ".safetensors");
}

}  // namespace mha2mla::tool
