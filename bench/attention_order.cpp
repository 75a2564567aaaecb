/// Times attention_order(), the ranking of the rotary pairs of a layer, on the default number of tokens with random
/// hidden states: attention_order CHECKPOINT [THREADS [SEQ_LEN]].
#include "rope/attention_order.hpp"

#include <chrono>
#include <cstdlib>
#include <iostream>
#include <random>

#include "mha2mla/error.hpp"
#include "mha2mla/threads.hpp"

int main(int argc, char** argv) {
    using namespace mha2mla;
    if (argc < 2) {
        std::cerr << "usage: attention_order CHECKPOINT [THREADS [SEQ_LEN]]\n";
        return 2;
    }
    try {
        const ThreadScope threads(argc > 2 ? std::atoi(argv[2]) : 1);
        const std::int64_t seq_len = argc > 3 ? std::atoi(argv[3]) : 512;
        const Model model = Model::open(argv[1]);
        std::mt19937 random(1);
        std::normal_distribution<float> normal;
        Matrix input(1024 / seq_len * seq_len, model.config.hidden_size);
        for (Eigen::Index i = 0; i < input.size(); ++i) input.data()[i] = normal(random);
        const auto start = std::chrono::steady_clock::now();
        const auto orders = attention_order(model, 0, seq_len, input);
        const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - start;
        std::cout << taken.count() << " s; head 0 keeps longest:";
        for (std::size_t i = 0; i < std::min<std::size_t>(4, orders.front().size()); ++i) {
            std::cout << ' ' << orders.front()[i];
        }
        std::cout << '\n';
    } catch (const Error& error) {
        std::cerr << "error: " << error.what() << '\n';
        return 1;
    }
}
