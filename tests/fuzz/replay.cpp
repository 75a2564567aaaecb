// Runs a fuzz target without libFuzzer: on its seeds and on mutations of them, the same in every run.
// Usage: replay_<target> SEEDS.txt [MUTATIONS [SECONDS]]. SEEDS.txt names a file per line. After SECONDS no further
// mutation is begun. The input that ends the process is left in the file replay_<target>.found.
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <csignal>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <string_view>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);
extern "C" __attribute__((weak)) void __sanitizer_set_death_callback(void (*callback)());

namespace {

using Clock = std::chrono::steady_clock;

constexpr std::size_t kLargest = 1 << 20;  // bytes of an input
constexpr unsigned kLongestSeconds = 100;  // for one input

std::string input;  // that the target is given
std::string found;  // the file for an input that ends the process

void keep_input() {
    const int file = ::open(found.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0666);
    if (file < 0) return;
    const bool whole = ::write(file, input.data(), input.size()) == static_cast<ssize_t>(input.size());
    ::close(file);
    const std::array<std::string_view, 3> message = {whole ? "the input is in " : "cannot write ", found, "\n"};
    for (const auto& part : message) {
        if (::write(2, part.data(), part.size()) < 0) return;
    }
}

extern "C" void on_signal(int number) {
    keep_input();
    std::signal(number, SIG_DFL);
    std::raise(number);
}

void run() {
    ::alarm(kLongestSeconds);
    (void)LLVMFuzzerTestOneInput(reinterpret_cast<const std::uint8_t*>(input.data()), input.size());
    ::alarm(0);
}

class Mutator {
public:
    explicit Mutator(const std::vector<std::string>& seeds) : seeds_(seeds) {}

    /// A seed after one to eight changes.
    std::string next() {
        std::string bytes = seeds_[below(seeds_.size())];
        for (std::size_t count = 1 + below(8); count > 0; --count) change(bytes);
        if (bytes.size() > kLargest) bytes.resize(kLargest);
        return bytes;
    }

private:
    std::size_t below(std::size_t limit) { return limit == 0 ? 0 : random_() % limit; }
    /// A position and a length of at most 64 bytes there.
    std::pair<std::size_t, std::size_t> piece(const std::string& bytes) {
        const std::size_t at = below(bytes.size());
        return {at, std::min(bytes.size() - at, 1 + below(64))};
    }

    void change(std::string& bytes) {
        static constexpr std::array<unsigned char, 8> kBytes = {0, 1, 0x20, 0x22, 0x7F, 0x80, 0xC0, 0xFF};
        static constexpr std::array<std::string_view, 12> kTexts = {
            "-1", "0", "1", "65536", "4294967296", "9223372036854775807", "1e999", "null", "[]", "{}", "\"\"", "true"};
        const auto [at, length] = piece(bytes);
        switch (bytes.empty() ? 3 : below(9)) {
            case 0:
                bytes[at] = static_cast<char>(bytes[at] ^ (1 << below(8)));
                return;
            case 1:
                bytes[at] = static_cast<char>(kBytes.at(below(kBytes.size())));
                return;
            case 2:
                bytes.erase(at, length);
                return;
            case 3:
                bytes.insert(at, kTexts.at(below(kTexts.size())));
                return;
            case 4:
                bytes.insert(below(bytes.size()), bytes.substr(at, length));
                return;
            case 5:
                replace_number(bytes, at, kTexts.at(below(kTexts.size())));
                return;
            case 6: {  // a little-endian number of up to eight bytes
                std::uint64_t number = random_() >> below(64);
                for (std::size_t i = at; i < std::min(bytes.size(), at + 8); ++i, number >>= 8) {
                    bytes[i] = static_cast<char>(number & 0xFF);
                }
                return;
            }
            case 7:
                bytes.resize(at);
                return;
            default: {
                const std::string& other = seeds_[below(seeds_.size())];
                const std::size_t from = below(other.size());
                bytes.replace(at, length, other.substr(from, 1 + below(64)));
            }
        }
    }

    /// Replaces the first run of digits from a position on.
    static void replace_number(std::string& bytes, std::size_t from, std::string_view by) {
        constexpr std::string_view kDigits = "0123456789";
        const std::size_t first = bytes.find_first_of(kDigits, from);
        if (first == std::string::npos) return;
        const std::size_t end = std::min(bytes.find_first_not_of(kDigits, first), bytes.size());
        bytes.replace(first, end - first, by);
    }

    const std::vector<std::string>& seeds_;
    std::mt19937_64 random_{20240229};
};

std::vector<std::string> read_seeds(const char* list) {
    std::vector<std::string> seeds;
    std::ifstream names(list);
    for (std::string name; std::getline(names, name);) {
        std::ifstream file(name, std::ios::binary);
        if (!file) std::fprintf(stderr, "%s: cannot be read\n", name.c_str());
        seeds.emplace_back(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>());
    }
    return seeds;
}

}  // namespace

int main(int count, char** arguments) {
    if (count < 2) {
        std::fprintf(stderr, "usage: %s SEEDS.txt [MUTATIONS [SECONDS]]\n", arguments[0]);
        return 2;
    }
    const auto seeds = read_seeds(arguments[1]);
    if (seeds.empty()) {
        std::fprintf(stderr, "%s names no seed\n", arguments[1]);
        return 2;
    }
    found = std::filesystem::path(arguments[0]).filename().string() + ".found";
    for (const int number : {SIGABRT, SIGALRM, SIGBUS, SIGFPE, SIGILL, SIGSEGV}) std::signal(number, on_signal);
    if (__sanitizer_set_death_callback != nullptr) __sanitizer_set_death_callback(keep_input);

    const auto start = Clock::now();
    const auto end = start + std::chrono::seconds(count > 3 ? std::stoi(arguments[3]) : 3);
    for (const auto& seed : seeds) {
        input = seed;
        run();
    }
    Mutator mutator(seeds);
    const int mutations = count > 2 ? std::stoi(arguments[2]) : 10'000;
    int done = 0;
    for (; done < mutations && Clock::now() < end; ++done) {
        input = mutator.next();
        run();
    }
    std::printf("%zu seeds and %d of %d mutations in %.1f s\n", seeds.size(), done, mutations,
                std::chrono::duration<double>(Clock::now() - start).count());
    return 0;
}
