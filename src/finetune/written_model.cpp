#include "written_model.hpp"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "../checkpoint/config_json.hpp"
#include "../checkpoint/destination.hpp"
#include "../convert/layout.hpp"
#include "../convert/output_files.hpp"
#include "../convert/record.hpp"
#include "../support/json_file.hpp"
#include "mha2mla/checkpoint_writer.hpp"
#include "mha2mla/error.hpp"

namespace mha2mla {
namespace fs = std::filesystem;
namespace {

using Json = nlohmann::ordered_json;

/// Files that convert() leaves to each conversion to make, and that belong to this one's weights too.
bool belongs_to_weights(const Model& source, const SideFiles::LeftOut& file) {
    const std::string& name = file.name;
    if (!file.for_name_alone) return false;
    if (name.ends_with("_rank.pth")) return true;
    if (!source.config.latent || source.config.latent->layout->loader_files == nullptr) return false;
    for (const LoaderFile& file : source.config.latent->layout->loader_files()) {
        if (file.name == name) return true;
    }
    return false;
}

std::string config_of(const Model& source, const std::optional<Dtype>& dtype) {
    auto config = read_json_file<Json>(source.checkpoint.directory() / "config.json");
    if (dtype) {
        for (const char* key : {"dtype", "torch_dtype"}) {
            if (config.contains(key)) config[key] = config_dtype(*dtype);
        }
    }
    return config_text(config);
}

std::string four_digits(const Json& value) {
    char text[64];
    (void)std::snprintf(text, sizeof text, "%.4f", value.get<double>());
    return text;
}

std::string read_all(const fs::path& file) {
    const MappedFile mapped(file);
    const auto bytes = mapped.bytes();
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

/// @param source_card empty: none
std::string card_text(const fs::path& source_card, const Json& record) {
    std::string card = source_card.empty() ? "# Fine-tuned model\n" : read_all(source_card);
    const Json& options = record.at("options");
    const Json& result = record.at("result");
    card += "\n## Fine-tuning\n\nTrained by `mha2mla finetune` after what is said above: " + result.at("steps").dump() +
            " steps, " + result.at("tokens").dump() + " tokens, learning rate " + options.at("learning_rate").dump() +
            ", weights: " + options.at("train").get<std::string>() + ".";
    if (result.contains("nll_after")) {
        card += " NLL on held-out text: " + four_digits(result.at("nll_before")) + " before, " +
                four_digits(result.at("nll_after")) + " after.";
    }
    return card + " All settings are in `" + std::string(kTrainingRecord) + "`, every step in `" +
           std::string(kTrainingLog) + "`.\n";
}

}  // namespace

std::uint64_t write_trained(const Model& trained, const Model& source, const WrittenRun& run) {
    std::vector<TensorSpec> specs;
    for (const SafetensorsFile& file : source.checkpoint.files()) {
        for (const TensorView& tensor : file.tensors()) {
            specs.push_back({tensor.name, output_dtype(tensor.dtype, run.dtype), tensor.shape});
        }
    }
    const std::vector<TensorSpec> written = specs;
    CheckpointWriter writer(run.destination, std::move(specs), {.overwrite = true});
    for (const TensorSpec& spec : written) {
        const TensorView& tensor = *trained.checkpoint.find(spec.name);
        if (!is_compute_dtype(tensor.dtype)) {
            writer.write(spec.name, tensor.data);
            continue;
        }
        std::vector<float> values(element_count(tensor.shape));
        to_float(tensor, 0, values);
        if (!std::ranges::all_of(values, [](float value) { return std::isfinite(value); })) {
            throw Error(ErrorCode::numeric,
                        "tensor '" + spec.name + "' is not finite after the last step; try a lower learning rate");
        }
        writer.write(spec.name, from_floats(values, spec.dtype, spec.name));
    }
    const fs::path& directory = source.checkpoint.directory();
    const SideFiles side = side_files(source.checkpoint);
    fs::path card;
    for (const std::string& name : side.copied) {
        if (name == "README.md") {
            card = directory / name;
        } else {
            writer.copy_file(name, directory / name);
        }
    }
    for (const auto& left_out : side.left_out) {
        if (belongs_to_weights(source, left_out)) writer.copy_file(left_out.name, directory / left_out.name);
    }
    writer.add_file("config.json", config_of(source, run.dtype));
    writer.add_file("README.md", card_text(card, run.record));
    writer.add_file(std::string(kTrainingLog), run.log);
    std::vector<CheckpointWriter::FileRecord> files;
    for (std::size_t i = 0; i < writer.file_count(); ++i) files.push_back(writer.finish_file(i));
    Json record = run.record;
    record["files"] = file_entries(files);
    writer.add_file(std::string(kTrainingRecord), record.dump(1) + "\n");
    const std::uint64_t bytes = writer.total_bytes();
    writer.commit();
    return bytes;
}

}  // namespace mha2mla
