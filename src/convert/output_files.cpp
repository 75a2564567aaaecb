#include "output_files.hpp"

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>

#include "../checkpoint/json_file.hpp"
#include "../model/latent_json.hpp"
#include "model_card.hpp"

namespace mha2mla {
namespace fs = std::filesystem;
namespace {

/// Weights in any format, and what convert() writes itself. Everything else in the directory is copied.
bool is_left_out(const std::string& name) {
    constexpr std::array<std::string_view, 12> kWeights = {".safetensors", ".bin", ".pt",         ".pth",
                                                           ".gguf",        ".h5",  ".msgpack",    ".onnx",
                                                           ".ckpt",        ".npz", ".incomplete", ".index.json"};
    return name == "config.json" || name.starts_with(".") ||
           std::any_of(kWeights.begin(), kWeights.end(), [&](auto suffix) { return name.ends_with(suffix); });
}

std::string config_text(const Model& source, const ConvertOptions& options, const ConvertReport& report,
                        const std::string& rank_file) {
    auto config = read_json_file<nlohmann::ordered_json>(source.checkpoint.directory() / "config.json");
    if (options.dtype) {
        const std::string name = *options.dtype == Dtype::f32   ? "float32"
                                 : *options.dtype == Dtype::f16 ? "float16"
                                                                : "bfloat16";
        config[config.contains("dtype") ? "dtype" : "torch_dtype"] = name;
    }
    const LatentConfig latent{report.selection, options.factorization, options.kv_rank};
    config["mha2mla"] = latent_to_json(latent, rank_file, options.rope.uniform_start);
    // A number a line would make thousands of lines of the pairs; a layer a line can be read.
    auto& pairs = config["mha2mla"]["kept_pairs"];
    std::string compact;
    for (const auto& layer : pairs) compact += (compact.empty() ? "\n      " : ",\n      ") + layer.dump();
    pairs = nullptr;
    std::string text = config.dump(2) + "\n";
    const std::string empty = "\"kept_pairs\": null";
    return text.replace(text.find(empty), empty.size(), "\"kept_pairs\": [" + compact + "\n    ]");
}

}  // namespace

void add_side_files(CheckpointWriter& writer, const Model& source, const ConvertOptions& options,
                    const ConvertReport& report, const PairRanks* ranks) {
    std::string rank_file;
    if (!reference_selects_the_same(report.selection, source.config, options.rope)) {
        const bool two_norm = report.selection.strategy == "2-norm" && ranks != nullptr;
        rank_file = two_norm ? "2_norm_rank.pth" : "rope_rank.pth";
        writer.add_file(rank_file,
                        rank_file_bytes(two_norm ? *ranks : ranks_selecting(report.selection, source.config)));
    }
    for (const auto& entry : fs::directory_iterator(source.checkpoint.directory())) {
        const std::string name = entry.path().filename().string();
        if (!entry.is_regular_file() || is_left_out(name)) continue;
        writer.copy_file(name == "README.md" ? "README.source.md" : name, entry.path());
    }
    writer.add_file("README.md", model_card(source, options, report));
    writer.add_file("config.json", config_text(source, options, report, rank_file));
}

}  // namespace mha2mla
