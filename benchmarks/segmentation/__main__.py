from benchmarks.segmentation.command import main

if __name__ == "__main__":
    main()
