#pragma once
#include <cstdint>
#include <vector>

#include "layout.hpp"
#include "mha2mla/checkpoint_writer.hpp"
#include "mha2mla/convert.hpp"

namespace mha2mla {

/// Result of converting one layer.
struct LayerResult {
    double retained_energy = 1;  // share of ‖A‖² that its truncated SVD keeps
    double balance = 0;          // KvBalance::factor that was used; 0 where there is none
};

/// Everything of one layer that changes, written to `writer`.
/// @param pairs kept pairs of each KV head.
LayerResult convert_layer(CheckpointWriter& writer, const Model& source, std::int64_t layer, const OutputForm& form,
                          const StagedPlan& stages, const LayerInputs* inputs, const LayerPairs& pairs);

/// The same with given weights, and o_proj too.
void write_aligned_layer(CheckpointWriter& writer, const Model& source, std::int64_t layer, const OutputForm& form,
                         const LatentWeights& weights);

/// A tensor that keeps its values, but for its factor: inside the kernel, or a little at a time if they change.
void copy_tensor(CheckpointWriter& writer, const Model& source, const CopiedTensor& copy, const OutputForm& form);

}  // namespace mha2mla
