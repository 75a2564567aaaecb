// make_stats FILE LAYERS HEADS KV_HEADS PAIRS MODEL: a statistics file of any shape, for the report's browser test. The
// same arguments give the same bytes. Norms decrease with the pair and differ between heads, as in real models.
#include <cmath>
#include <cstdlib>
#include <random>

#include "mha2mla/calibration.hpp"

namespace {

std::vector<double> norms(std::int64_t heads, std::int64_t pairs, std::mt19937& generator) {
    std::vector<double> values;
    for (std::int64_t head = 0; head < heads; ++head) {
        const double peak = static_cast<double>(generator() % 1000) / 1000 * static_cast<double>(pairs);
        for (std::int64_t k = 0; k < pairs; ++k) {
            const double distance = (static_cast<double>(k) - peak) / static_cast<double>(pairs);
            values.push_back(0.2 + static_cast<double>(generator() % 1000) / 2000 +
                             6 * std::exp(-30 * distance * distance));
        }
    }
    return values;
}

}  // namespace

int main(int argc, char** argv) {
    if (argc != 7) return 2;
    mha2mla::CalibrationStats stats;
    stats.layers = std::atoll(argv[2]);
    stats.heads = std::atoll(argv[3]);
    stats.kv_heads = std::atoll(argv[4]);
    stats.pairs = std::atoll(argv[5]);
    stats.model = argv[6];
    stats.data = "made up";
    stats.sequences = stats.seq_len = 1;
    std::mt19937 generator(7);
    stats.mean_query_norm = norms(stats.layers * stats.heads, stats.pairs, generator);
    stats.mean_key_norm = norms(stats.layers * stats.kv_heads, stats.pairs, generator);
    mha2mla::Observer observer;
    mha2mla::save_stats(argv[1], stats, observer);
    return 0;
}
