#include "mapping_table.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <cstdint>
#include <cstdlib>
#include <mutex>
#include <utility>

#include "mha2mla/error.hpp"
#include "mha2mla/mapped_file.hpp"

namespace mha2mla {

/// An entry of the table. Entries are used again but never freed, as the handler may be reading them.
struct Mapping {
    // What the handler reads and sets. `begin` is 0 while the entry is free.
    std::atomic<std::uintptr_t> begin = 0, end = 0;
    std::atomic<bool> lost = false;  // a part that is gone was read
    Mapping* next = nullptr;
    // The rest is guarded by the mutex.
    bool told = false;
    int descriptor = -1;
    std::size_t size = 0;
    std::string name = {};
};

namespace {

static_assert(std::atomic<std::uintptr_t>::is_always_lock_free && std::atomic<bool>::is_always_lock_free);

std::mutex mutex;
std::atomic<Mapping*> first = nullptr;
std::optional<std::string> closed;  // of a file that was closed before anything asked
std::atomic<bool> survives = false;
const auto page = static_cast<std::uintptr_t>(::sysconf(_SC_PAGESIZE));
struct sigaction before {};

/// The mapping that holds the address. For the handler too.
Mapping* find(std::uintptr_t address) {
    for (Mapping* mapping = first.load(); mapping != nullptr; mapping = mapping->next) {
        const std::uintptr_t begin = mapping->begin.load();
        const std::uintptr_t end = mapping->end.load();
        if (begin == 0 || begin != mapping->begin.load()) continue;  // free, or not as a whole
        if (address >= begin && address < end) return mapping;
    }
    return nullptr;
}

/// Calls only what a handler may: mmap() is a plain system call.
void on_bus_error(int /*signal*/, siginfo_t* info, void* /*context*/) {
    const auto address = reinterpret_cast<std::uintptr_t>(info->si_addr);
    Mapping* mapping = find(address);
    const std::uintptr_t start = address - address % page;
    // Before the zeros are there: another thread may read them, finish what it does with them and ask.
    if (mapping != nullptr) mapping->lost.store(true);
    if (mapping == nullptr || ::mmap(reinterpret_cast<void*>(start), mapping->end.load() - start, PROT_READ,
                                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1, 0) == MAP_FAILED) {
        (void)::sigaction(SIGBUS, &before, nullptr);  // the instruction runs again, and fails again
    }
}

/// Whether the page is in the process's memory: then something has read it. Without the system's word for it: no.
bool is_present(std::uintptr_t address) {
    const int pages = ::open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
    std::uint64_t entry = 0;
    const auto offset = static_cast<off_t>(address / page * sizeof entry);
    const bool read = pages >= 0 && ::pread(pages, &entry, sizeof entry, offset) == sizeof entry;
    if (pages >= 0) ::close(pages);
    return read && (entry >> 63U) != 0;
}

/// Reading behind a file's end but within its last page gives zeros without a fault.
bool last_page_lost(const Mapping& mapping, std::size_t now) {
    if (now >= mapping.size || now % page == 0) return false;
    return is_present(mapping.begin.load() + now - now % page);
}

/// What is wrong with an open file, if anything.
std::optional<std::string> complaint(const Mapping& mapping) {
    struct stat status {};
    const bool known = ::fstat(mapping.descriptor, &status) == 0;
    const std::size_t now = known ? static_cast<std::size_t>(status.st_size) : 0;
    if (!mapping.lost.load() && !(known && last_page_lost(mapping, now))) return std::nullopt;
    return mapping.name + ": another program has changed it while it was read: it had " + std::to_string(mapping.size) +
           " bytes and has " + std::to_string(now) + "; let nothing write to it, and run the same again";
}

}  // namespace

Mapping* enter_mapping(std::span<const std::byte> bytes, int descriptor, std::string name) {
    const std::lock_guard lock(mutex);
    Mapping* mapping = first.load();
    while (mapping != nullptr && mapping->begin.load() != 0) mapping = mapping->next;
    if (mapping == nullptr) {
        mapping = new Mapping;
        mapping->next = first.load();
        first.store(mapping);
    }
    mapping->lost.store(false);
    mapping->told = false;
    mapping->descriptor = descriptor;
    mapping->size = bytes.size();
    mapping->name = std::move(name);
    const auto begin = reinterpret_cast<std::uintptr_t>(bytes.data());
    mapping->end.store(begin + (bytes.size() + page - 1) / page * page);
    mapping->begin.store(begin);
    return mapping;
}

void leave_mapping(Mapping& mapping) noexcept {
    const std::lock_guard lock(mutex);
    try {
        if (!mapping.told && !closed) closed = complaint(mapping);
        mapping.name.clear();
    } catch (...) {
        closed.reset();  // no memory for a message
    }
    mapping.begin.store(0);
}

std::optional<std::string> take_shortened_file() {
    const std::lock_guard lock(mutex);
    if (closed) return std::exchange(closed, std::nullopt);
    for (Mapping* mapping = first.load(); mapping != nullptr; mapping = mapping->next) {
        if (mapping->begin.load() == 0) continue;
        auto text = complaint(*mapping);
        if (!text) continue;
        mapping->told = true;
        return text;
    }
    return std::nullopt;
}

void note_lost_page(Mapping& mapping) {
    struct stat status {};
    if (::fstat(mapping.descriptor, &status) != 0) return;
    if (last_page_lost(mapping, static_cast<std::size_t>(status.st_size))) mapping.lost.store(true);
}

bool touch_pages(std::span<const std::byte> bytes) {
    if (!survives.load()) return false;
    for (std::size_t i = 0; i < bytes.size(); i += page) (void)*static_cast<const volatile std::byte*>(&bytes[i]);
    if (!bytes.empty()) (void)*static_cast<const volatile std::byte*>(&bytes.back());
    return true;
}

void survive_shortened_files() {
    if (survives.exchange(true)) return;
    struct sigaction action {};
    action.sa_sigaction = on_bus_error;
    action.sa_flags = SA_SIGINFO;
    (void)::sigemptyset(&action.sa_mask);
    (void)::sigaction(SIGBUS, &action, &before);
}

void check_mapped_files() {
    if (const auto text = take_shortened_file()) throw Error(ErrorCode::io, *text);
}

}  // namespace mha2mla
