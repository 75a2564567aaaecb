// Times truncated_svd() alone, for bench/factorize_against_peers.py. The matrix is raw float32, row-major.
//
// Prints one JSON line per repetition: {"seconds": 1.25}. With --paced each repetition waits for a line on standard
// input, so that a script can alternate with other programs.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "mha2mla/error.hpp"
#include "mha2mla/factorize.hpp"
#include "mha2mla/threads.hpp"

namespace {

using namespace mha2mla;

/// The library's method with this name.
struct Method {
    const char* name;
    SvdOptions options;
};
const Method kMethods[] = {
    {"standard", {SigmaPlacement::balanced, SvdMethod::standard}},
    {"strict", {SigmaPlacement::balanced, SvdMethod::strict}},
};

struct Flags {
    std::filesystem::path matrix, factors;
    std::int64_t rows = 0, columns = 0, rank = 0;
    std::string method = kMethods[0].name;
    int threads = 0, repeat = 1, layers = 1;
    bool paced = false;
};

Matrix read_matrix(const Flags& flags) {
    const auto expected = static_cast<std::uintmax_t>(flags.rows * flags.columns) * sizeof(float);
    if (std::filesystem::file_size(flags.matrix) != expected) {
        throw std::runtime_error(flags.matrix.string() + ": does not hold " + std::to_string(flags.rows) + " x " +
                                 std::to_string(flags.columns) + " float32");
    }
    Matrix matrix(flags.rows, flags.columns);
    std::ifstream in(flags.matrix, std::ios::binary);
    if (!in.read(reinterpret_cast<char*>(matrix.data()), static_cast<std::streamsize>(expected))) {
        throw std::runtime_error(flags.matrix.string() + ": cannot read");
    }
    return matrix;
}

void write_matrix(const std::filesystem::path& path, const Matrix& matrix) {
    std::ofstream out(path, std::ios::binary);
    out.write(reinterpret_cast<const char*>(matrix.data()),
              static_cast<std::streamsize>(static_cast<std::size_t>(matrix.size()) * sizeof(float)));
    if (!out.flush()) throw std::runtime_error(path.string() + ": cannot write");
}

const SvdOptions& options_of(const std::string& method) {
    for (const auto& row : kMethods) {
        if (method == row.name) return row.options;
    }
    throw std::runtime_error("no method is called '" + method + "'");
}

/// One factorisation with all threads or, for several layers, one per thread, as in convert().
LowRank factorize_all(const std::vector<Matrix>& layers, std::int64_t rank, const SvdOptions& options) {
    if (layers.size() == 1) return truncated_svd(layers.front(), rank, options);
    LowRank first;
    const auto count = static_cast<std::int64_t>(layers.size());
#pragma omp parallel for schedule(dynamic)
    for (std::int64_t i = 0; i < count; ++i) {
        LowRank result = truncated_svd(layers[static_cast<std::size_t>(i)], rank, options);
        if (i == 0) first = std::move(result);
    }
    return first;
}

void run(const Flags& flags) {
    const ThreadScope threads(flags.threads);
    const SvdOptions& options = options_of(flags.method);
    if (flags.rank > std::min(flags.rows, flags.columns)) {
        throw std::runtime_error("the rank exceeds the smaller side of the matrix");  // no exception may leave OpenMP
    }
    const std::vector<Matrix> layers(static_cast<std::size_t>(flags.layers), read_matrix(flags));
    LowRank result;
    std::string line;
    for (int i = 0; i < flags.repeat; ++i) {
        if (flags.paced && !std::getline(std::cin, line)) break;
        const auto start = std::chrono::steady_clock::now();
        result = factorize_all(layers, flags.rank, options);
        const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - start;
        std::cout << nlohmann::json{{"seconds", elapsed.count()}} << std::endl;
    }
    if (flags.factors.empty()) return;
    write_matrix(flags.factors.string() + ".up.f32", result.up);
    write_matrix(flags.factors.string() + ".down.f32", result.down);
}

}  // namespace

int main(int argc, char** argv) try {
    Flags flags;
    CLI::App app("Times the truncated SVD of one matrix");
    std::string methods;
    for (const auto& row : kMethods) methods += (methods.empty() ? "" : ", ") + std::string(row.name);
    app.add_option("matrix", flags.matrix, "Raw float32 file, row-major")->required();
    app.add_option("rows", flags.rows)->required()->check(CLI::PositiveNumber);
    app.add_option("columns", flags.columns)->required()->check(CLI::PositiveNumber);
    app.add_option("rank", flags.rank)->required()->check(CLI::PositiveNumber);
    app.add_option("--method", flags.method, "One of " + methods)->capture_default_str();
    app.add_option("--threads", flags.threads, "Threads; 0 uses all")->check(CLI::NonNegativeNumber);
    app.add_option("--repeat", flags.repeat, "Repetitions")->check(CLI::PositiveNumber)->capture_default_str();
    app.add_option("--layers", flags.layers, "Copies of the matrix to factorise side by side, one on each thread")
        ->check(CLI::PositiveNumber)
        ->capture_default_str();
    app.add_flag("--paced", flags.paced, "Wait for a line on standard input before each repetition; stop at its end");
    app.add_option("--factors", flags.factors, "Write the last factors to PREFIX.up.f32 and PREFIX.down.f32")
        ->type_name("PREFIX");
    CLI11_PARSE(app, argc, argv);
    run(flags);
    return 0;
} catch (const std::exception& error) {
    std::cerr << "error: " << error.what() << '\n';
    return 1;
}
