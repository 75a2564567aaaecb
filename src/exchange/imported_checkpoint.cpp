#include "../checkpoint/destination.hpp"
#include "mha2mla/error.hpp"
#include "mha2mla/gguf_import.hpp"

namespace mha2mla {
namespace fs = std::filesystem;
namespace {

/// @throws Error{io} if the place is there and holds more than a killed process may have left
void check_place(const fs::path& place, const fs::path& name) {
    std::error_code error;
    const fs::file_status status = fs::symlink_status(place, error);
    if (!fs::exists(status)) return;
    bool ours = fs::is_directory(status);
    for (fs::directory_iterator entry(place, error), end; ours && !error && entry != end; entry.increment(error)) {
        ours = entry->path() == journal_path(place) || entry->path().filename() == name;
    }
    if (ours && !error) return;
    throw Error(ErrorCode::io, place.string() + ": is in the way of the imported file; move it away");
}

}  // namespace

struct ImportedCheckpoint::Impl {
    fs::path place, directory;
    DestinationLock lock;

    Impl(const fs::path& file, const fs::path& where)
        : place((check_place(where, file.filename()), where)), directory(where / file.filename()), lock(where) {}
    ~Impl() {
        std::error_code ignored;
        fs::remove_all(directory, ignored);  // and the lock removes the place, if it made it
    }
    Impl(const Impl&) = delete;
    Impl& operator=(const Impl&) = delete;
    Impl(Impl&&) = delete;
    Impl& operator=(Impl&&) = delete;
};

ImportedCheckpoint::ImportedCheckpoint(const fs::path& file, const fs::path& place, std::optional<Dtype> dtype,
                                       Observer& observer)
    : impl_(std::make_unique<Impl>(file, place)) {
    GgufImportRequest request;
    request.overwrite = true;  // of an earlier run that was killed
    request.dtype = dtype;
    (void)import_gguf(file, impl_->directory, request, observer);
}

ImportedCheckpoint::~ImportedCheckpoint() {
    const fs::path place = impl_->place;
    impl_.reset();
    std::error_code ignored;
    fs::remove(place, ignored);  // one that a killed process made
}

const fs::path& ImportedCheckpoint::directory() const { return impl_->directory; }

}  // namespace mha2mla
