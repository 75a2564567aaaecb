#include "mha2mla/convert.hpp"

#include "convert_layer.hpp"
#include "layout.hpp"
#include "mha2mla/error.hpp"
#include "mha2mla/threads.hpp"
#include "output_files.hpp"
#include "schedule.hpp"

namespace mha2mla {

void check_destination(const Model& source, const std::filesystem::path& destination, bool overwrite) {
    std::error_code ignored;
    if (std::filesystem::equivalent(source.checkpoint.directory(), destination, ignored)) {
        throw Error(ErrorCode::usage, destination.string() + ": source and destination are the same directory");
    }
    check_output_directory(destination, overwrite);
}

ConvertReport convert(const Model& source, const std::filesystem::path& destination, const ConvertOptions& options,
                      const PairRanks* ranks, Observer& observer) {
    ConvertReport report;
    report.plan = plan_conversion(source.config, {options.rope.rope_dim, options.kv_rank, options.factorization, 16});
    report.selection =
        options.aligner != nullptr ? options.aligner->selection() : select_rope(source.config, options.rope, ranks);
    check_destination(source, destination, options.overwrite);
    const Schedule schedule = plan_schedule(source.config, options, thread_count());
    const OutputLayout layout = lay_out_conversion(source, options);
    CheckpointWriter writer(destination, layout.tensors, {options.max_shard_bytes, options.overwrite});
    report.retained_energy.resize(source.layers.size());
    const auto read_ahead = [&](std::int64_t layer) {
        if (layer >= source.config.num_hidden_layers) return;
        const AttentionView& view = *source.layers[static_cast<std::size_t>(layer)].attention;
        for (const auto* linear : {&view.q, &view.k, &view.v}) source.checkpoint.will_need(*linear->weight);
    };
    const auto layer_piece = [&](std::int64_t layer) {
        set_team_size(schedule.threads_per_layer);
        read_ahead(layer + schedule.layers_at_once);
        const auto index = static_cast<std::size_t>(layer);
        report.retained_energy[index] = convert_layer(writer, source, layer, options, report.selection.pairs[index]);
    };
    const auto copy_piece = [&](std::int64_t i) {
        copy_tensor(writer, source, *layout.copies[static_cast<std::size_t>(i)], options);
    };
    std::vector<Work> works = {{"copy", static_cast<std::int64_t>(layout.copies.size()), 1, copy_piece}};
    if (options.aligner != nullptr) {
        // Each layer corrects for those before it, so there is an order.
        report.retained_energy.clear();
        for (std::int64_t layer = 0; layer < source.config.num_hidden_layers; ++layer) {
            const LatentWeights weights = options.aligner->next(report.alignment_error.emplace_back());
            write_aligned_layer(writer, source, layer, options, report.selection.pairs[static_cast<std::size_t>(layer)],
                                weights);
        }
    } else {
        works.insert(works.begin(), {"convert", source.config.num_hidden_layers, schedule.layers_at_once, layer_piece});
    }
    run_side_by_side(works, observer);
    add_side_files(writer, source, options, report, ranks);
    writer.commit();
    report.output_bytes = writer.total_bytes();
    return report;
}

}  // namespace mha2mla
