// An RTSP server that is not ours, for the conformance tests: live555, which many cameras have inside.
//
// server [--login USER PASSWORD] PATH=FILE[,FILE]… serves files (byte streams of H.264 and H.265, AAC with
// ADTS headers, WAV of G.711 or of 16 bits, which it sends as mu-law; their suffix says which) from their
// beginning for each client, several of one path as tracks of one stream. Prints its port; ends with its
// standard input.

#include <unistd.h>

#include <cstdio>
#include <sstream>
#include <string>

#include "BasicUsageEnvironment.hh"
#include "liveMedia.hh"

static ServerMediaSubsession* track(UsageEnvironment& env, std::string const& file) {
  std::string const kind = file.substr(file.rfind('.') + 1);
  char const* name = file.c_str();
  if (kind == "h264") return H264VideoFileServerMediaSubsession::createNew(env, name, False);
  if (kind == "h265") return H265VideoFileServerMediaSubsession::createNew(env, name, False);
  if (kind == "aac") return ADTSAudioFileServerMediaSubsession::createNew(env, name, False);
  return WAVAudioFileServerMediaSubsession::createNew(env, name, False, True);
}

int main(int count, char** words) {
  OutPacketBuffer::maxSize = 2000000;  // bytes; a keyframe is larger than its default
  UsageEnvironment* env = BasicUsageEnvironment::createNew(*BasicTaskScheduler::createNew());
  UserAuthenticationDatabase* logins = nullptr;
  int at = 1;
  if (count > 3 && std::string(words[1]) == "--login") {
    logins = new UserAuthenticationDatabase;
    logins->addUserRecord(words[2], words[3]);
    at = 4;
  }
  RTSPServer* server = RTSPServer::createNew(*env, 0, logins);
  if (server == nullptr) return 1;
  for (; at < count; at++) {
    std::string const pair = words[at];
    std::string const path = pair.substr(0, pair.find('='));
    ServerMediaSession* session = ServerMediaSession::createNew(*env, path.c_str());
    std::istringstream files(pair.substr(pair.find('=') + 1));
    for (std::string file; std::getline(files, file, ',');) session->addSubsession(track(*env, file));
    server->addServerMediaSession(session);
  }
  char* const prefix = server->rtspURLPrefix();  // rtsp://HOST:PORT/
  std::string const url = prefix;
  std::printf("%s\n", url.substr(url.rfind(':') + 1, url.rfind('/') - url.rfind(':') - 1).c_str());
  std::fflush(stdout);
  static char volatile ended = 0;
  env->taskScheduler().turnOnBackgroundReadHandling(
      0, [](void*, int) { char byte; if (read(0, &byte, 1) <= 0) ended = 1; }, nullptr);
  env->taskScheduler().doEventLoop(&ended);
  return 0;
}
